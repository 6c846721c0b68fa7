-- Hand on locks that became free by themselves: max_hold or a trust was over (rule 9).
-- KEYS[1]  prefix
-- ARGV[1]  how many locks to look at
-- Returns  how many were handed on

-- include: common
-- include: locks
-- include: line

local served, lines = 0, redis.call('HRANDFIELD', key('lines'), ARGV[1], 'WITHVALUES')
for i = 1, #lines, 2 do served = served + serve_line(lines[i], tonumber(lines[i + 1])) end
return served
