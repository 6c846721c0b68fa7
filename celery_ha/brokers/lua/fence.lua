-- Refuse every later write of a lease. Its in-flight set stays as it is, for recovery.
--
-- KEYS[1] open leases (hash)   KEYS[2] tombstone of this lease
-- ARGV[1] lease   ARGV[2] seconds to keep the tombstone
-- Returns 1 if the lease was open.

redis.call('SET', KEYS[2], '1', 'EX', ARGV[2])
return redis.call('HDEL', KEYS[1], ARGV[1])
