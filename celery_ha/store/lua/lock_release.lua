-- Free a lock if this holder has it with this token and its lease is open.
-- KEYS[1]  prefix
-- ARGV[1]  name
-- ARGV[2]  lease, ARGV[3] claim, ARGV[4] task of the holder
-- ARGV[5]  token
-- ARGV[6]  '1': free it; '0': only say whether it is held
-- Returns  1 or 0

-- include: common

local name, lease, claim, task, token, free = unpack(ARGV)
local lock = lock_of(name)
if not lock or not is_held_by(lock, lease, claim, task) or lock.token ~= token or not is_open(lease) then
  return 0
end
if free == '1' then free_lock(name, lock) end
return 1
