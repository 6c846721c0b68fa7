-- Delete dead letters that are older than they may be, the oldest first.
--
-- KEYS[1] dead letters (hash)   KEYS[2] their reasons (hash)   KEYS[3] their order (sorted set)
-- ARGV[1] seconds they may be kept   ARGV[2] how many to delete at the most
-- Returns how many were deleted.

local now = redis.call('TIME')
local since = string.format('%.6f', tonumber(now[1]) + tonumber(now[2]) / 1e6 - tonumber(ARGV[1]))
local old = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', since, 'LIMIT', 0, ARGV[2])
if #old > 0 then
  redis.call('HDEL', KEYS[1], unpack(old))
  redis.call('HDEL', KEYS[2], unpack(old))
  redis.call('ZREM', KEYS[3], unpack(old))
end
return #old
