-- Forget entries of a schedule.
-- KEYS[1]  prefix
-- ARGV[1]  office
-- ARGV[2]  lease, ARGV[3] claim, ARGV[4] task of its holder   ARGV[5] token
-- ARGV[6..]  entries
-- Returns  how many there were; -1 if the term is over

-- include: common
-- include: locks
-- include: beat

local office, lease, claim, task, token = unpack(ARGV)
if not is_in_office(office, lease, claim, task, token) then return -1 end
local dropped = 0
for i = 6, #ARGV do dropped = dropped + redis.call('HDEL', key('beat'), ARGV[i]) end
return dropped
