-- Write down who owns which shard, if the leader still leads and the members are still those it worked that out from.
-- KEYS[1]  prefix
-- ARGV[1]  lease of the leader
-- ARGV[2]  its term
-- ARGV[3]  version of the membership
-- ARGV[4]  the rings (JSON)
-- Returns  1 written, 0 refused

-- include: common
-- include: members

local by, term, version, rings = unpack(ARGV)
if not leads(by, term) or redis.call('GET', key('version')) ~= version then return 0 end
redis.call('SET', key('rings'), rings)
return 1
