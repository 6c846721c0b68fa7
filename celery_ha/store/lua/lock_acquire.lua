-- Grant a lock if it is free, the asker's already, or held in trust for its task (rules 4, 8, 12). A claim
-- whose end was told gets nothing any more.
-- KEYS[1]  prefix
-- ARGV[1]  name
-- ARGV[2]  lease, ARGV[3] claim, ARGV[4] task of the asker
-- ARGV[5]  microseconds for which the lock stays in trust if the asker dies
-- ARGV[6]  run id of the server, '' if unknown
-- Returns  {token, again, lease, claim, task}; token '' is busy, then the last three name the holder ('' unknown)

-- include: common

local name, lease, claim, task, inherit, run = unpack(ARGV)
local busy = {'', 0, '', '', ''}
note_run(run)
if not is_open(lease) or redis.call('EXISTS', key('ended:' .. claim)) == 1 then return busy end

local lock = lock_of(name)
if lock then
  if is_held_by(lock, lease, claim, task) then return {lock.token, 1, '', '', ''} end
  -- A lock whose lease is open has its claim in flight, or the end of the claim would have freed it. Another
  -- task waits for settlement or the end of the trust; a lease neither open nor fenced is never settled.
  local owned = lock.lease ~= '' and is_open(lock.lease)
  local same_task = task ~= '' and lock.task == task
  local stranded = lock.lease ~= '' and not is_fenced(lock.lease)
  if owned or not (same_task or stranded) then
    return {'', 0, lock.lease, lock.claim, lock.task}
  end
end
if is_quiet() then return busy end

if lock then free_lock(name, lock) end
local token = integer(math.max(tonumber(redis.call('GET', key('token')) or '0') + 1, micros()))
redis.call('SET', key('token'), token)
redis.call('HSET', key('lock:' .. name), 'lease', lease, 'claim', claim, 'task', task, 'token', token, 'inherit', inherit)
index_lock(name, {lease = lease, claim = claim})
return {token, 0, '', '', ''}
