-- Delete dead letters for good.
--
-- KEYS[1] dead letters (hash)   KEYS[2] their reasons (hash)   KEYS[3] their order (sorted set)
-- ARGV ids
-- Returns how many were there.

redis.call('HDEL', KEYS[2], unpack(ARGV))
redis.call('ZREM', KEYS[3], unpack(ARGV))
return redis.call('HDEL', KEYS[1], unpack(ARGV))
