-- Tell all observers that the broker has given up the connection of a lease (rule 3), and wake the leader; if it is
-- the leader's, everybody.
-- KEYS[1]  prefix
-- ARGV[1]  lease
-- Returns  1; 0 it is not open, or in doubt already

-- include: common
-- include: members

if not is_open(ARGV[1]) then return 0 end
local now = micros()
local known = tonumber(redis.call('ZSCORE', key('doubts'), ARGV[1]) or 0)
redis.call('ZADD', key('doubts'), integer(now + DOUBT), ARGV[1])
redis.call('EXPIRE', key('doubts'), BELL_TTL)
-- One from before the clock went back counts no more than one that is over.
if known > now and known <= now + DOUBT then return 0 end
local leads = leader()
if leads == ARGV[1] then
  ring_everybody()
elseif is_open(leads) then
  ring(leads)
end
return 1
