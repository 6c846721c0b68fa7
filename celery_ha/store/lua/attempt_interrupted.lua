-- Note that attempts of a lease are over and count; only if it is not open.
-- KEYS[1]  prefix
-- ARGV[1]  lease   ARGV[2...] claims
-- Returns  how many were not noted yet

-- include: common
-- include: attempts

if is_open(ARGV[1]) then return 0 end
local before = redis.call('HLEN', key('attempts:' .. ARGV[1]))
for i = 2, #ARGV do settle_one(ARGV[1], 'R', ARGV[i]) end
return before - redis.call('HLEN', key('attempts:' .. ARGV[1]))
