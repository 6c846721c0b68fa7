-- Tell all observers that the broker has given up the connection of a lease (rule 3).
-- KEYS[1]  prefix
-- ARGV[1]  lease   ARGV[2] microseconds for which that is remembered
-- Returns  1; 0 it is not open, or in doubt already

-- include: common
-- include: members

if not is_open(ARGV[1]) then return 0 end
local now = micros()
local known = redis.call('ZSCORE', key('doubts'), ARGV[1])
redis.call('ZADD', key('doubts'), integer(now + ARGV[2]), ARGV[1])
redis.call('EXPIRE', key('doubts'), BELL_TTL)
if known and tonumber(known) > now then return 0 end
ring_everybody()
return 1
