-- Open a lease on the broker.
--
-- KEYS[1] open leases (hash)   KEYS[2] tombstone of this lease   KEYS[3] leases that may hold claims (set)
-- ARGV[1] lease
-- Returns 1; 0 if the lease was fenced here, it never opens again.

if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], redis.call('TIME')[1])
redis.call('SADD', KEYS[3], ARGV[1])
return 1
