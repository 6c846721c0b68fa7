-- Recovery of a fenced lease is finished: forget it, keep a history entry and a tombstone.
-- KEYS[1]  prefix
-- ARGV[1]  lease
-- ARGV[2]  what was moved (JSON)
-- ARGV[3]  history entries to keep
-- ARGV[4]  seconds to keep the history
-- Returns  1, or 0 if the lease is not fenced or still has locks to settle

-- include: common

local lease, result, limit, ttl = unpack(ARGV)
local record = redis.call('HGET', key('fenced'), lease)
if not record or redis.call('EXISTS', key('claims:' .. lease)) == 1 then return 0 end
redis.call('HDEL', key('fenced'), lease)
redis.call('SET', key('gone:' .. lease), '1', 'EX', TOMBSTONE_TTL)
redis.call('LPUSH', key('history'), '{"schema":' .. SCHEMA .. ',"fenced":' .. record .. ',"recovered":' .. result
  .. ',"done":' .. string.format('%.6f', micros() / 1000000) .. '}')
redis.call('LTRIM', key('history'), 0, tonumber(limit) - 1)
redis.call('EXPIRE', key('history'), ttl)
return 1
