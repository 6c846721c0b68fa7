-- End attempts, then write a new one down (rule 1).
-- KEYS[1]  prefix
-- ARGV[1]  lease   ARGV[2] claim   ARGV[3] message   ARGV[4] what to list it as, as in attempts.lua
-- ARGV[5]  1: not after an end of the same message
-- ARGV[6...] endings, as in attempts.lua
-- Returns  1 written; 0 the lease is not open, nothing changed; -1 somebody else runs the message, or has

-- include: common
-- include: attempts

local lease, claim, message = ARGV[1], ARGV[2], ARGV[3]
if not is_open(lease) then return 0 end
settle_all(lease, 6)
local known = earlier(message)
if known.state == 'e' and ARGV[5] == '1' then return -1 end
if known.state == 'r' then return known.claim == claim and 1 or -1 end
redis.call('SET', key('try:' .. message), table.concat({ 'r', known.count, lease, claim }, ' '))
redis.call('HSET', key('attempts:' .. lease), claim, ARGV[4])
return 1
