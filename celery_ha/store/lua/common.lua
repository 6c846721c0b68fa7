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

-- Notice a new server run: what was acknowledged to somebody may be lost. An unknown run ('') says nothing.
-- Returns whether it is quiet time.
local function note_run(run)
  local known = redis.call('HMGET', key('run'), 'id', 'since', 'ttl')
  if known[2] and tonumber(known[2]) > micros() then
    -- The clock went back meanwhile: it would last for as long as that step.
    begin_quiet_time()
    return known[3]
  end
  if run ~= '' and known[1] ~= run then
    redis.call('HSET', key('run'), 'id', run)
    if known[1] then
      begin_quiet_time()
      return known[3]
    end
  end
  return known[2] and known[3] and micros() < tonumber(known[2]) + tonumber(known[3])
end

local function is_quiet()
  return note_run('')
end
