-- Replace a node's record, if its lease is open and the record is still the one that was read.
-- KEYS[1]  prefix
-- ARGV[1]  lease
-- ARGV[2]  record as read
-- ARGV[3]  new record
-- Returns  1 replaced, 0 the lease is not open, -1 the record changed meanwhile: read it again

-- include: common
-- include: members

local lease, old, new = unpack(ARGV)
if not is_open(lease) then return 0 end
if redis.call('HGET', key('nodes'), lease) ~= old then return -1 end
if new ~= old then
  redis.call('HSET', key('nodes'), lease, new)
  members_changed()
end
return 1
