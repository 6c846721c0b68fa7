-- Fence a lease judged dead, if the judge still leads and the evidence still stands.
-- KEYS[1]  prefix
-- ARGV[1]  lease of the leader
-- ARGV[2]  its term
-- ARGV[3]  lease judged dead
-- ARGV[4]  its renewal counter
-- ARGV[5]  its connections, separated by spaces
-- ARGV[6]  reason (JSON string)
-- Returns  1 fenced (now or before), 0 refused

-- include: common
-- include: members

local by, term, lease, counter, conns, reason = unpack(ARGV)
if not leads(by, term) then return 0 end
if redis.call('HEXISTS', key('fenced'), lease) == 1 then return 1 end
if not as_judged(lease, counter, conns) then return 0 end
-- A full server refuses renewals too, and then a counter that stands still proves nothing. INCR is refused
-- there as well, and first, so nothing of this happens.
redis.call('INCR', key('version'))
fence_member(lease, term, reason)
return 1
