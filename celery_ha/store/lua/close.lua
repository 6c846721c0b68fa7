-- Say goodbye: delete a lease that holds nothing, fence one that has luggage (rule 7). When the last worker has
-- gone, what waits for locks goes back to its queues: plain Celery may come after us (G8).
-- KEYS[1]  prefix
-- ARGV[1]  lease
-- ARGV[2]  '1' if it holds nothing on the broker
-- Returns  0 it was not open, 1 deleted, 2 fenced

-- include: common
-- include: members
-- include: locks
-- include: line

-- A process that consumes no queue only takes locks, and a beat names one that is none.
local function has_workers()
  for _, node in ipairs(redis.call('HVALS', key('nodes'))) do
    for _, queue in ipairs(cjson.decode(node).queues) do
      if queue ~= '@beat' then return true end
    end
  end
  return false
end

local lease, clean = unpack(ARGV)
if not is_open(lease) then return 0 end
if clean == '1' and redis.call('EXISTS', key('claims:' .. lease)) == 0 then
  forget_member(lease)
  members_changed()
  if not has_workers() then
    for _, name in ipairs(redis.call('HKEYS', key('lines'))) do pour(name) end
  end
  return 1
end
fence_member(lease, '0', '"closed with luggage"')
return 2
