-- Move claims of fenced leases to the front of their queues. Given newest first, so that the oldest
-- ends up in front.
--
-- KEYS[1] open leases (hash)
-- ARGV[1] key prefix of queues   ARGV[2] prefix of our names   ARGV[3] separator
-- ARGV[4...] lease, claim, payload; and again
-- Returns how many moved; a claim no longer in flight, or of a lease that is open, is skipped, and so is one whose
-- queue cannot be written: it stays in flight, and whoever recovers comes again.
-- include: _record

local moved = 0
for at = 4, #ARGV, 3 do
  local flight = ARGV[2] .. 'flight:' .. ARGV[at]
  local record = redis.call('HGET', flight, ARGV[at + 1])
  if record and redis.call('HEXISTS', KEYS[1], ARGV[at]) == 0 then
    local started, source = unpack_record(record)
    if put_back(flight, ARGV[at + 1], record, ARGV[1] .. source, ARGV[at + 2]) then
      ring(ARGV[2] .. 'bell:', source, ARGV[3])
      moved = moved + 1
    end
  end
end
return moved
