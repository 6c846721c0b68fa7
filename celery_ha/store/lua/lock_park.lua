-- Move a claimed message to the end of a lock's line; its turn may come at once (rule 9).
-- KEYS[1]  prefix   KEYS[2] the broker's open leases   KEYS[3] in-flight of the lease
-- ARGV[1]  name
-- ARGV[2]  lease, ARGV[3] claim, ARGV[4] task of the attempt that found it busy
-- ARGV[5]  microseconds for which the lock is kept for the task when it is its turn
-- ARGV[6]  how many may hold the lock
-- ARGV[7]  key prefix of queues   ARGV[8] prefix of the broker's bells   ARGV[9] separator
-- Returns  'parked', 'due' (nothing happened: the lock is its own, or kept for it), or 'gone' (nothing happened: not in flight)

-- include: common
-- include: locks
-- include: line

local name, lease, claim, task, inherit, limit, queues, bells, sep = unpack(ARGV)
if redis.call('HEXISTS', KEYS[2], lease) == 0 then return 'gone' end
local record = redis.call('HGET', KEYS[3], claim)
if not record then return 'gone' end

-- It must not wait for itself.
for slot = 0, tonumber(limit) - 1 do
  local lock = lock_of(slot_id(name, slot))
  if lock and (is_due_to(lock, task) or lock.claim == claim) then return 'due' end
end

-- The record is frozen: see _record.lua of the broker.
local length, from = string.match(record, '^1[01] (%d+) ()')
local to = from + tonumber(length)
local source, payload = string.sub(record, from, to - 1), string.sub(record, to)
local cut = string.find(source, sep, 1, true)
local bell = bells .. (cut and string.sub(source, 1, cut - 1) or source)

redis.call('HDEL', KEYS[3], claim)
join_line(name, limit, {'task', queues .. source, bell, task, inherit, payload, integer(micros())})
end_claim(claim)
-- All or none: what was kept for it meanwhile is for others while it waits here.
for _, id in ipairs(redis.call('SMEMBERS', key('trust:' .. task))) do
  local lock = lock_of(id)
  if lock and lock.lease == '' and lock.task == task then free_lock(id, lock) end
end
-- The lock may have become free since it was found busy: nobody else would hand it on.
serve_line(name, tonumber(limit))
return 'parked'
