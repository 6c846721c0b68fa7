-- Free a lock if this holder has it with this token and its lease is open, and hand it on.
-- KEYS[1]  prefix
-- ARGV[1]  name
-- ARGV[2]  lease, ARGV[3] claim, ARGV[4] task of the holder
-- ARGV[5]  token
-- ARGV[6]  '1': free it; '0': only say whether it is held
-- Returns  1, 0, or -1: the lease is not open, so nobody knows since when it was not held

-- include: common
-- include: locks

local name, lease, claim, task, token, free = unpack(ARGV)
if not is_open(lease) then return -1 end

local function is_held(lock)
  return lock and is_held_by(lock, lease, claim, task) and lock.token == token
end

local first = slot_id(name, 0)
local lock = lock_of(first)
if is_held(lock) and (free == '0' or redis.call('EXISTS', key('line:' .. name)) == 0) then
  if free == '1' then drop_lock(first, lock) end
  return 1
end

-- What follows is worked out only for the rest: other slots, and a lock that others wait for.
-- include: line

local function held(id)
  local lock = lock_of(id)
  if not is_held(lock) then return false end
  if free == '1' then free_lock(id, lock) end
  return true
end

if held(first) then return 1 end
for _, id in ipairs(redis.call('SMEMBERS', key('held:' .. claim))) do
  if name_of(id) == name then
    if held(id) then return 1 end
    -- It was somebody else's already, by max_hold.
    if free == '1' then unlist(id, lease, claim) end
  end
end
return 0
