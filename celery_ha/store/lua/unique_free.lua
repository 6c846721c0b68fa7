-- Free a key if it is this task's.
-- KEYS[1]  prefix
-- ARGV[1]  key
-- ARGV[2]  task
-- Returns  1 or 0

local at = KEYS[1] .. 'unique:' .. ARGV[1]
if redis.call('HGET', at, 'task') ~= ARGV[2] then return 0 end
return redis.call('DEL', at)
