-- Put a firing in the place of the one before it.
-- KEYS[1]  prefix
-- ARGV[1]  office
-- ARGV[2]  lease, ARGV[3] claim, ARGV[4] task of its holder   ARGV[5] token
-- ARGV[6]  entry
-- ARGV[7]  record that should be there, '' for none   ARGV[8] record to put there
-- ARGV[9]  history entries to keep, 0: it is no new firing   ARGV[10] seconds for which they are kept
-- Returns  the record that is there now; nil if the term is over

-- include: common
-- include: locks
-- include: beat

local office, lease, claim, task, token, entry, old, new, limit, ttl = unpack(ARGV)
if not is_in_office(office, lease, claim, task, token) then return false end
local there = redis.call('HGET', key('beat'), entry)
if there and there ~= old then return there end
redis.call('HSET', key('beat'), entry, new)
if tonumber(limit) > 0 then
  local history = key('beat:history')
  redis.call('LPUSH', history, string.format('%.6f ', micros() / 1000000) .. new)
  redis.call('LTRIM', history, 0, limit - 1)
  redis.call('EXPIRE', history, ttl)
end
return new
