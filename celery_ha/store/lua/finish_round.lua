-- Renew leadership: a round of judging is done.
-- KEYS[1]  prefix
-- ARGV[1]  lease of the leader
-- ARGV[2]  its term
-- Returns  1, or 0 if it was deposed

-- include: common
-- include: members

if not leads(ARGV[1], ARGV[2]) then return 0 end
redis.call('HINCRBY', key('leader'), 'rounds', 1)
return 1
