-- Included by the scripts that change who is a member or who leads; after common.

-- Microseconds for which a lease is in doubt.
local DOUBT = 5000000

local function ring(lease)
  local bell = key('wake:' .. lease)
  redis.call('DEL', bell)
  redis.call('LPUSH', bell, '1')
  redis.call('EXPIRE', bell, BELL_TTL)
end

local function ring_everybody()
  for _, lease in ipairs(redis.call('HKEYS', key('leases'))) do ring(lease) end
end

-- Raise the membership version and ring every node's own bell. Never behind the clock: a server that took over without
-- the last changes would count others by the same numbers.
local function members_changed()
  local now = micros()
  if redis.call('INCR', key('version')) < now then redis.call('SET', key('version'), integer(now)) end
  ring_everybody()
end

-- Take a lease out of the open ones and vacate its office.
local function forget_member(lease)
  redis.call('HDEL', key('leases'), lease)
  redis.call('HDEL', key('nodes'), lease)
  redis.call('HDEL', key('conns'), lease)
  redis.call('DEL', key('wake:' .. lease))
  redis.call('ZREM', key('doubts'), lease)
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
