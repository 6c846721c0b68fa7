-- Note that a message is published and keep its key, if it still is this task's: it may have ended by now.
-- KEYS[1]  prefix
-- ARGV[1]  key
-- ARGV[2]  task
-- ARGV[3]  milliseconds after which the key is free again
-- Returns  1 or 0

local at = KEYS[1] .. 'unique:' .. ARGV[1]
if redis.call('HGET', at, 'task') ~= ARGV[2] then return 0 end
redis.call('HSET', at, 'published', 1)
redis.call('PEXPIRE', at, ARGV[3])
return 1
