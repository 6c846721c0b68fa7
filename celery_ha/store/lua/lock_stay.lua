-- Say that a caller still stands in line, and hand on what became free by itself: nobody else may be there to.
-- KEYS[1]  prefix
-- ARGV[1]  name   ARGV[2] how many may hold it   ARGV[3] id of the ask   ARGV[4] milliseconds as in lock_acquire
-- ARGV[5]  lease, ARGV[6] claim of the caller   ARGV[7] run id of the server, '' if unknown
-- Returns  1: it stands there; 0: it does not, its turn may have come; -1: it need not wait any more

-- include: common
-- include: locks
-- include: line

local name, limit, ask, stay, lease, claim, run = unpack(ARGV)
-- After a restart nobody's turn comes before all had time to say that they are here.
note_run(run)
if not is_open(lease) and is_fenced(lease) or redis.call('EXISTS', key('ended:' .. claim)) == 1 then return -1 end
local here = redis.call('SET', key('here:' .. ask), '1', 'XX', 'PX', stay)
-- Its time may have passed while the server was away; nobody has its place unless its turn came meanwhile.
if not here and stands(name, ask) then here = redis.call('SET', key('here:' .. ask), '1', 'PX', stay) end
serve_line(name, tonumber(limit))
return here and 1 or 0
