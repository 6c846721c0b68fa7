-- What the scripts share; each includes it.
-- KEYS[1]  prefix of every key. All keys live on one server (no Cluster), so the others are made from it.

local P = KEYS[1]
local SCHEMA = 1
local BELL_TTL = 60
local TOMBSTONE_TTL = 3600
-- Longer than any request waits in a socket.
local ENDED_TTL = 600

local function key(name)
  return P .. name
end

-- Server time in microseconds; exact in a double until the year 2255.
local function micros()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

local function integer(n)
  return string.format('%.0f', n)
end

local function is_open(lease)
  return redis.call('HEXISTS', key('leases'), lease) == 1
end

local function is_fenced(lease)
  return redis.call('HEXISTS', key('fenced'), lease) == 1 or redis.call('EXISTS', key('gone:' .. lease)) == 1
end

-- Rule 12: no lock is granted until leases had a whole TTL to re-assert themselves.
local function begin_quiet_time()
  redis.call('HSET', key('run'), 'since', integer(micros()))
end

local function is_quiet()
  local run = redis.call('HMGET', key('run'), 'since', 'ttl')
  return run[1] and run[2] and micros() < tonumber(run[1]) + tonumber(run[2])
end

-- Notice a new server run: what was acknowledged to somebody may be lost. An unknown run ('') says nothing.
local function note_run(run)
  if run == '' then return end
  local known = redis.call('HGET', key('run'), 'id')
  if known == run then return end
  redis.call('HSET', key('run'), 'id', run)
  if known then begin_quiet_time() end
end

-- Raise the membership version and ring every node's own bell.
local function members_changed()
  redis.call('INCR', key('version'))
  for _, lease in ipairs(redis.call('HKEYS', key('leases'))) do
    local bell = key('wake:' .. lease)
    redis.call('DEL', bell)
    redis.call('LPUSH', bell, '1')
    redis.call('EXPIRE', bell, BELL_TTL)
  end
end

-- Take a lease out of the open ones and vacate its office.
local function forget_member(lease)
  redis.call('HDEL', key('leases'), lease)
  redis.call('HDEL', key('nodes'), lease)
  redis.call('HDEL', key('conns'), lease)
  redis.call('DEL', key('wake:' .. lease))
  if redis.call('HGET', key('leader'), 'lease') == lease then redis.call('DEL', key('leader')) end
end

-- Move a lease from the open ones to the fenced ones. `reason` is a JSON string, quotes included:
-- records are put together as text, because cjson would turn an empty list into an object.
local function fence_member(lease, term, reason)
  local node = redis.call('HGET', key('nodes'), lease) or 'null'
  local conns = redis.call('HGET', key('conns'), lease) or ''
  forget_member(lease)
  redis.call('HSET', key('fenced'), lease, '{"schema":' .. SCHEMA .. ',"node":' .. node
    .. ',"connections":"' .. conns .. '","term":' .. term .. ',"reason":' .. reason
    .. ',"at":' .. string.format('%.6f', micros() / 1000000) .. '}')
  members_changed()
end

-- Whether a lease still shows the evidence it was judged by.
local function as_judged(lease, counter, conns)
  return redis.call('HGET', key('leases'), lease) == counter
    and (redis.call('HGET', key('conns'), lease) or '') == conns
end

-- The leader's record: lease, term, rounds; each '' if the office was never taken.
local function leader()
  local l = redis.call('HMGET', key('leader'), 'lease', 'term', 'rounds')
  return l[1] or '', l[2] or '', l[3] or ''
end

local function leads(lease, term)
  local holder, current = leader()
  return holder == lease and current == term and is_open(lease)
end

local function take_office(lease)
  local term = redis.call('INCR', key('term'))
  redis.call('HSET', key('leader'), 'lease', lease, 'term', term, 'rounds', 0)
  return term
end

-- Locks. Each of a lock's slots (one, unless `limit` says more) is a lock by itself, its id "<slot>:<name>":
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
  local l = redis.call('HMGET', key('lock:' .. id), 'lease', 'claim', 'task', 'token', 'inherit')
  if not l[4] then return nil end
  return {lease = l[1], claim = l[2], task = l[3], token = l[4], inherit = tonumber(l[5])}
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

local function drop_lock(id, lock)
  if lock.lease == '' then
    redis.call('SREM', key('trust:' .. lock.task), id)
  else
    redis.call('SREM', key('held:' .. lock.claim), id)
    if redis.call('EXISTS', key('held:' .. lock.claim)) == 0 then
      redis.call('SREM', key('claims:' .. lock.lease), lock.claim)
    end
  end
  redis.call('DEL', key('lock:' .. id))
end

-- Grant a slot that is free (rule 12: tokens grow, also when the clock steps back). `most`: microseconds after
-- which it is free again whatever its holder does; 0: never.
local function grant(id, lease, claim, task, inherit, most)
  local token = integer(math.max(tonumber(redis.call('GET', key('token')) or '0') + 1, micros()))
  redis.call('SET', key('token'), token)
  redis.call('HSET', key('lock:' .. id), 'lease', lease, 'claim', claim, 'task', task, 'token', token, 'inherit', inherit)
  if tonumber(most) > 0 then redis.call('PEXPIRE', key('lock:' .. id), math.ceil(tonumber(most) / 1000)) end
  redis.call('SADD', key('held:' .. claim), id)
  redis.call('SADD', key('claims:' .. lease), claim)
  return token
end

-- Keep a slot, ownerless, for a task (rule 8).
local function entrust(id, task, token, inherit)
  local ms = math.ceil(inherit / 1000)
  local trust = key('trust:' .. task)
  redis.call('HSET', key('lock:' .. id), 'lease', '', 'claim', '', 'task', task, 'token', token, 'inherit', integer(inherit))
  redis.call('PEXPIRE', key('lock:' .. id), ms)
  -- The index lives as long as the longest trust in it.
  local left = redis.call('PTTL', trust)
  redis.call('SADD', trust, id)
  redis.call('PEXPIRE', trust, math.max(left, ms))
end
