-- Forget a fenced lease whose claims have all moved.
--
-- KEYS[1] in-flight of this lease (hash)   KEYS[2] leases that may hold claims (set)
-- ARGV[1] lease
-- Returns 1; 0 if it still has claims.

if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SREM', KEYS[2], ARGV[1])
return 1
