-- Open a lease, or re-assert one; a fenced one is refused.
-- KEYS[1]  prefix
-- ARGV[1]  lease
-- ARGV[2]  node record (JSON)
-- ARGV[3]  ids of its connections, separated by spaces; '' if they cannot be watched
-- ARGV[4]  TTL in microseconds
-- ARGV[5]  epoch to start if the store has no memory
-- ARGV[6]  run id of the server, '' if unknown
-- ARGV[7]  '1' if this process opened the lease before
-- Returns  the store's epoch; '' if the lease is fenced

-- include: common
-- include: members

local lease, node, conns, ttl, epoch, run, again = unpack(ARGV)
if is_fenced(lease) then return '' end
redis.call('SET', key('epoch'), epoch, 'NX')
note_run(run)
local longest = tonumber(redis.call('HGET', key('run'), 'ttl') or '0')
if tonumber(ttl) > longest then redis.call('HSET', key('run'), 'ttl', ttl) end
if again == '1' and not is_open(lease) then begin_quiet_time() end
redis.call('HINCRBY', key('leases'), lease, 1)
redis.call('HSET', key('nodes'), lease, node)
redis.call('HSET', key('conns'), lease, conns)
members_changed()
return redis.call('GET', key('epoch'))
