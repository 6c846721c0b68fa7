-- End claims of an open lease.
--
-- KEYS[1] open leases (hash)   KEYS[2] in-flight of this lease (hash)
-- ARGV[1] lease   ARGV[2] key prefix of queues   ARGV[3] prefix of our names   ARGV[4] separator
-- ARGV[5] dead letters kept   ARGV[6...] endings (_settle)
-- Returns 1; nil if the lease is not open (nothing happened).
-- include: _record
-- include: _settle

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return nil end
settle(KEYS[2], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), 6)
return 1
