-- Included by the scripts that touch in-flight records.
-- A record is frozen so that every version can requeue it (rule 16):
--   "1" started(0|1) " " #source " " source payload
-- where source is the broker key of the list the message came from, without the key prefix.

local function pack(started, source, payload)
  return '1' .. started .. ' ' .. #source .. ' ' .. source .. payload
end

local function unpack_record(record)
  local started, length, from = string.match(record, '^1([01]) (%d+) ()')
  local to = from + tonumber(length)
  return started, string.sub(record, from, to - 1), string.sub(record, to)
end

-- Moves a claim's message to the front of a list and returns true. It stays in flight if the list cannot be written:
-- its key may be somebody else's by now, of another type, and an error in the middle of a script undoes nothing.
local function put_back(flight, claim, record, list, payload)
  redis.call('HDEL', flight, claim)
  local pushed = redis.pcall('RPUSH', list, payload)
  if type(pushed) == 'number' then return true end
  redis.call('HSET', flight, claim, record)
  return false
end

-- Rings a queue's bell: one member however often it is rung, so a bell never grows.
local function ring(bells, source, sep)
  local cut = string.find(source, sep, 1, true)
  local bell = bells .. (cut and string.sub(source, 1, cut - 1) or source)
  if redis.call('ZADD', bell, 0, '1') == 1 then
    redis.call('EXPIRE', bell, 3600)
  end
end
