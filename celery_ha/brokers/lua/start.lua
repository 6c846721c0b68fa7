-- Settle ended claims, then mark an attempt started (rule 1): the write without which no body runs.
--
-- KEYS[1] open leases (hash)   KEYS[2] in-flight of this lease (hash)
-- ARGV[1] lease   ARGV[2] claim   ARGV[3] key prefix of queues   ARGV[4] prefix of our names
-- ARGV[5] separator   ARGV[6] dead letters kept   ARGV[7...] endings (_settle)
-- Returns 1 if the attempt may run; 0 if the claim is not in flight; nil if the lease is not open.
-- include: _record
-- include: _settle

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return nil end
settle(KEYS[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), 7)
local record = redis.call('HGET', KEYS[2], ARGV[2])
if not record then return 0 end
local started, source, payload = unpack_record(record)
if started == '0' then
  redis.call('HSET', KEYS[2], ARGV[2], pack('1', source, payload))
end
return 1
