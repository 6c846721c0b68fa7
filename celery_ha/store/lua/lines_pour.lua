-- Put every message that waits for a lock back to the front of its queue: nobody will be there to wake it.
-- KEYS[1]  prefix
-- Returns  how many lines there were

-- include: common
-- include: locks
-- include: line

local names = redis.call('HKEYS', key('lines'))
for _, name in ipairs(names) do pour(name) end
return #names
