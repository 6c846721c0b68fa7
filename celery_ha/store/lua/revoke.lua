-- Remember revoked tasks, forget those whose time is over, and tell all.
-- KEYS[1]  prefix
-- ARGV[1]  seconds to remember them for   ARGV[2...] task ids; none: only tell
-- Returns  every id that is remembered

-- include: common

local at, now = key('revoked'), tonumber(redis.call('TIME')[1])
for i = 2, #ARGV do redis.call('ZADD', at, 'GT', now + math.ceil(tonumber(ARGV[1])), ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', at, '-inf', now)
local last = redis.call('ZRANGE', at, -1, -1, 'WITHSCORES')
if last[2] then redis.call('EXPIREAT', at, last[2]) end
return redis.call('ZRANGE', at, 0, -1)
