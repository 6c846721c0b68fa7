-- Move the oldest messages of a list to the end of another, as long as they are the ones we have read.
--
-- KEYS[1] from   KEYS[2] to
-- ARGV a message as it was read, what to append instead; and again, the oldest first
-- Returns how many moved.

for at = 1, #ARGV, 2 do
  if redis.call('LINDEX', KEYS[1], -1) ~= ARGV[at] then return (at - 1) / 2 end
  redis.call('LPUSH', KEYS[2], ARGV[at + 1]) -- first: if it is refused, nothing is lost
  redis.call('RPOP', KEYS[1])
end
return #ARGV / 2
