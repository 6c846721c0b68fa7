-- What all scripts share.
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
