-- Included by the scripts of the beat; after common and locks.

-- Whether somebody holds an office, a lock that one may hold, in the term that its token names.
local function is_in_office(office, lease, claim, task, token)
  local lock = is_open(lease) and lock_of(slot_id(office, 0))
  return lock and is_held_by(lock, lease, claim, task) and lock.token == token
end
