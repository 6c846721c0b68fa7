-- How long somebody who was granted a lock out of its line may hold it still.
-- KEYS[1]  prefix
-- ARGV[1]  claim   ARGV[2] token of the grant
-- Returns  milliseconds; -1: for ever; -2: it is not held any more

-- include: common
-- include: locks

local claim, token = unpack(ARGV)
for _, id in ipairs(redis.call('SMEMBERS', key('held:' .. claim))) do
  local lock = lock_of(id)
  if lock and lock.claim == claim and lock.token == token then return redis.call('PTTL', key('lock:' .. id)) end
end
return -2
