-- Included by claim, start and settle: ends claims of a lease that is known to be open.
-- One argument a claim, first letter = ending:
--   a<claim>            acknowledge
--   r<claim>            give back, the payload as it was
--   R<claim> <payload>  give back with this payload (two arguments)
--   d<claim> <reason>   to the dead letters (two arguments)
--   u<claim>            the attempt did not start after all
-- A claim that is not in flight is skipped, so a resent ending changes nothing. One that cannot go back stays.

local function bury(dead, limit, claim, record, reason)
  local now = redis.call('TIME')
  redis.call('HSET', dead, claim, record)
  redis.call('HSET', dead .. ':why', claim, reason)
  redis.call('ZADD', dead .. ':index', tonumber(now[1]) + tonumber(now[2]) / 1e6, claim)
  local over = redis.call('ZCARD', dead .. ':index') - limit
  if over > 0 then
    for _, old in ipairs(redis.call('ZRANGE', dead .. ':index', 0, over - 1)) do
      redis.call('HDEL', dead, old)
      redis.call('HDEL', dead .. ':why', old)
      redis.call('ZREM', dead .. ':index', old)
    end
  end
end

local function settle(flight, prefix, names, sep, limit, from)
  local acks = {}
  local at = from
  while at <= #ARGV do
    local ending, claim = string.sub(ARGV[at], 1, 1), string.sub(ARGV[at], 2)
    if ending == 'a' then
      acks[#acks + 1] = claim
    else
      local record = redis.call('HGET', flight, claim)
      if record then
        local started, source, payload = unpack_record(record)
        if ending == 'u' then
          redis.call('HSET', flight, claim, pack('0', source, payload))
        else
          if ending == 'd' then
            redis.call('HDEL', flight, claim)
            bury(names .. 'dead', limit, claim, record, ARGV[at + 1])
          elseif put_back(flight, claim, record, prefix .. source, ending == 'R' and ARGV[at + 1] or payload) then
            ring(names .. 'bell:', source, sep)
          end
        end
      end
      if ending == 'R' or ending == 'd' then at = at + 1 end
    end
    at = at + 1
  end
  if #acks > 0 then
    redis.call('HDEL', flight, unpack(acks))
  end
end
