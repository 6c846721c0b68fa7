-- Move dead letters back to the end of their queues.
--
-- KEYS[1] dead letters (hash)   KEYS[2] their reasons (hash)   KEYS[3] their order (sorted set)
-- ARGV[1] key prefix of queues   ARGV[2] prefix of our names   ARGV[3] separator
-- ARGV[4...] id, payload to put back; and again
-- Returns how many moved; one that is not there any more is skipped.
-- include: _record

local moved = 0
for at = 4, #ARGV, 2 do
  local record = redis.call('HGET', KEYS[1], ARGV[at])
  if record then
    local started, source = unpack_record(record)
    redis.call('LPUSH', ARGV[1] .. source, ARGV[at + 1]) -- first: if it is refused, nothing is lost
    redis.call('HDEL', KEYS[1], ARGV[at])
    redis.call('HDEL', KEYS[2], ARGV[at])
    redis.call('ZREM', KEYS[3], ARGV[at])
    ring(ARGV[2] .. 'bell:', source, ARGV[3])
    moved = moved + 1
  end
end
return moved
