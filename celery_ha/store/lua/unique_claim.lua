-- Reserve a key for a task, unless another has it; one that is its own already is kept at least so long.
-- KEYS[1]  prefix
-- ARGV[1]  key
-- ARGV[2]  task
-- ARGV[3]  milliseconds after which it is free again
-- Returns  {task that has it, 1 if its message is published}

local at = KEYS[1] .. 'unique:' .. ARGV[1]
local task, ttl = ARGV[2], tonumber(ARGV[3])
local held = redis.call('HMGET', at, 'task', 'published')
if held[1] and held[1] ~= task then return {held[1], tonumber(held[2])} end
if not held[1] then redis.call('HSET', at, 'task', task, 'published', 0) end
redis.call('PEXPIRE', at, math.max(ttl, redis.call('PTTL', at)))
return {task, tonumber(held[2] or 0)}
