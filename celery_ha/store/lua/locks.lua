-- Included by the scripts that change locks; after common.
--
-- Each of a lock's slots (one, unless `limit` says more) is a lock by itself, its id "<slot>:<name>":
-- `lock:<id>` is the slot, `held:<claim>` the ids a claim holds, `claims:<lease>` the claims of a lease that
-- hold any, `trust:<task>` the ids in trust for a task, `line:<name>` who stands in line for the lock (see
-- line.lua), `lines` the limit of each lock that somebody stands in line for. `ended:<claim>` remembers the
-- end of a claim: a request that its caller gave up may arrive after it.

local function slot_id(name, slot)
  return string.format('%d:', slot) .. name
end

local function name_of(id)
  return string.sub(id, string.find(id, ':', 1, true) + 1)
end

local function lock_of(id)
  local l = redis.call('HMGET', key('lock:' .. id), 'lease', 'claim', 'task', 'token', 'inherit', 'ask')
  if not l[4] then return nil end
  return {lease = l[1], claim = l[2], task = l[3], token = l[4], inherit = tonumber(l[5]), ask = l[6]}
end

local function is_held_by(lock, lease, claim, task)
  return lock.lease == lease and lock.claim == claim and lock.task == task
end

-- Whether a task may have a lock that is not free: it is in trust for it, or was another attempt's of its own
-- that has ended. A lock whose lease is open has its claim in flight, or the end of the claim would have
-- freed it (rule 4).
local function is_due_to(lock, task)
  return task ~= '' and lock.task == task and not (lock.lease ~= '' and is_open(lock.lease))
end

-- A lock of a lease that is neither open nor fenced is never settled: anybody may have it.
local function is_stranded(lock)
  return lock.lease ~= '' and not is_open(lock.lease) and not is_fenced(lock.lease)
end

-- Take a slot off the list of what a claim holds.
local function unlist(id, lease, claim)
  redis.call('SREM', key('held:' .. claim), id)
  if redis.call('EXISTS', key('held:' .. claim)) == 0 then redis.call('SREM', key('claims:' .. lease), claim) end
end

local function drop_lock(id, lock)
  if lock.lease == '' then
    redis.call('SREM', key('trust:' .. lock.task), id)
  else
    unlist(id, lock.lease, lock.claim)
  end
  redis.call('DEL', key('lock:' .. id))
end

-- Grant a slot that is free (rule 12: tokens grow, also when the clock steps back). `most`: microseconds after
-- which it is free again whatever its holder does; 0: never.
local function grant(id, lease, claim, task, inherit, most, ask)
  local token = integer(math.max(tonumber(redis.call('GET', key('token')) or '0') + 1, micros()))
  redis.call('SET', key('token'), token)
  redis.call('HSET', key('lock:' .. id), 'lease', lease, 'claim', claim, 'task', task, 'token', token, 'inherit', inherit,
    'ask', ask)
  if tonumber(most) > 0 then redis.call('PEXPIRE', key('lock:' .. id), math.ceil(tonumber(most) / 1000)) end
  redis.call('SADD', key('held:' .. claim), id)
  redis.call('SADD', key('claims:' .. lease), claim)
  return token
end

-- Keep a slot, ownerless, for a task (rule 8). `since`: when it came to the line, in microseconds; nil: it never was in one.
local function entrust(id, task, token, inherit, since)
  local ms = math.ceil(inherit / 1000)
  local trust = key('trust:' .. task)
  redis.call('HSET', key('lock:' .. id), 'lease', '', 'claim', '', 'task', task, 'token', token, 'inherit', integer(inherit),
    'ask', '', 'since', since or '')
  redis.call('PEXPIRE', key('lock:' .. id), ms)
  -- The index lives as long as the longest trust in it.
  local left = redis.call('PTTL', trust)
  redis.call('SADD', trust, id)
  redis.call('PEXPIRE', trust, math.max(left, ms))
end
