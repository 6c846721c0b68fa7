-- Move an open lease's renewal counter on and register the connections it has now.
-- KEYS[1]  prefix
-- ARGV[1]  lease
-- ARGV[2]  ids of its connections, separated by spaces
-- ARGV[3]  run id of the server, '' if unknown
-- Returns  {'open' | 'fenced' | 'unknown', epoch, version, leader's lease, term, rounds}

-- include: common
-- include: members

local lease, conns, run = unpack(ARGV)
local state = 'unknown'
note_run(run)
if is_open(lease) then
  state = 'open'
  redis.call('HINCRBY', key('leases'), lease, 1)
  redis.call('HSET', key('conns'), lease, conns)
elseif is_fenced(lease) then
  state = 'fenced'
end
local l, term, rounds = leader()
return {state, redis.call('GET', key('epoch')) or '', redis.call('GET', key('version')) or '0', l, term, rounds}
