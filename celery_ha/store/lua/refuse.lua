-- Refuse a lease that is not open here for good (rule 6: a stranger on the broker), if the judge still leads.
-- KEYS[1]  prefix
-- ARGV[1]  lease of the leader
-- ARGV[2]  its term
-- ARGV[3]  lease to refuse
-- Returns  1 it is refused (now or before), 0 it is open, or the judge does not lead

-- include: common
-- include: members

local by, term, lease = unpack(ARGV)
if not leads(by, term) or is_open(lease) then return 0 end
redis.call('SET', key('gone:' .. lease), '1', 'EX', TOMBSTONE_TTL)
return 1
