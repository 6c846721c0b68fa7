-- Say goodbye: delete a lease that holds nothing, fence one that has luggage (rule 7).
-- KEYS[1]  prefix
-- ARGV[1]  lease
-- ARGV[2]  '1' if it holds nothing on the broker
-- Returns  0 it was not open, 1 deleted, 2 fenced

-- include: common
-- include: members

local lease, clean = unpack(ARGV)
if not is_open(lease) then return 0 end
if clean == '1' and redis.call('EXISTS', key('claims:' .. lease)) == 0 then
  forget_member(lease)
  members_changed()
  return 1
end
fence_member(lease, '0', '"closed with luggage"')
return 2
