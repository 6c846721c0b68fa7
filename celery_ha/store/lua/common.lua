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

-- Locks: `lock:<name>` is the lock, `held:<claim>` the names a claim holds, `claims:<lease>` the claims
-- of a lease that hold any, `trust:<task>` the names in trust for a task. `ended:<claim>` remembers the end
-- of a claim: a request that its caller gave up may arrive after it.

local function lock_of(name)
  local l = redis.call('HMGET', key('lock:' .. name), 'lease', 'claim', 'task', 'token', 'inherit')
  if not l[4] then return nil end
  return {lease = l[1], claim = l[2], task = l[3], token = l[4], inherit = tonumber(l[5])}
end

local function index_lock(name, lock)
  redis.call('SADD', key('held:' .. lock.claim), name)
  redis.call('SADD', key('claims:' .. lock.lease), lock.claim)
end

local function unindex_lock(name, lock)
  if lock.lease == '' then
    redis.call('SREM', key('trust:' .. lock.task), name)
    return
  end
  redis.call('SREM', key('held:' .. lock.claim), name)
  if redis.call('EXISTS', key('held:' .. lock.claim)) == 0 then
    redis.call('SREM', key('claims:' .. lock.lease), lock.claim)
  end
end

local function free_lock(name, lock)
  unindex_lock(name, lock)
  redis.call('DEL', key('lock:' .. name))
end

local function is_held_by(lock, lease, claim, task)
  return lock.lease == lease and lock.claim == claim and lock.task == task
end
