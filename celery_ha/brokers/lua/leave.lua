-- Close a lease that holds nothing (rule 7).
--
-- KEYS[1] open leases (hash)   KEYS[2] in-flight of this lease (hash)   KEYS[3] leases that may hold claims (set)
-- ARGV[1] lease
-- Returns 1; 0 if the lease still holds claims: a goodbye with luggage is a death.

if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
return 1
