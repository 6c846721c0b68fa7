-- How long somebody who was granted a lock out of its line may hold it still.
-- KEYS[1]  prefix
-- ARGV[1]  name   ARGV[2] how many may hold it   ARGV[3] lease, ARGV[4] claim, ARGV[5] task of the holder
-- Returns  milliseconds; -1: for ever; -2: it is not held any more

-- include: common
-- include: locks

local name, limit, lease, claim, task = unpack(ARGV)
for slot = 0, limit - 1 do
  local id = slot_id(name, slot)
  local lock = lock_of(id)
  if lock and is_held_by(lock, lease, claim, task) then return redis.call('PTTL', key('lock:' .. id)) end
end
return -2
