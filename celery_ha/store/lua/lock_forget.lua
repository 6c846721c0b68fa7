-- Give up an ask: it leaves the line, what it was granted is free, and it gets nothing any more.
-- KEYS[1]  prefix
-- ARGV[1]  name   ARGV[2] claim   ARGV[3] id of the ask
-- ARGV[4]  '1': unless it was granted already
-- Returns  the token that it keeps, or ''

-- include: common
-- include: locks
-- include: line

local name, claim, ask, unless = unpack(ARGV)
for _, id in ipairs(redis.call('SMEMBERS', key('held:' .. claim))) do
  local lock = lock_of(id)
  if lock and name_of(id) == name and lock.claim == claim and lock.ask == ask then
    if unless == '1' then return lock.token end
    free_lock(id, lock)
  end
end
-- A request that its caller gave up may still be on its way.
redis.call('SET', key('forgot:' .. ask), '1', 'EX', ENDED_TTL)
redis.call('DEL', key('here:' .. ask), key('answer:' .. ask))
local line = key('line:' .. name)
for _, entry in ipairs(redis.call('LRANGE', line, 0, -1)) do
  local fields = unpack_entry(entry)
  if fields[1] == 'call' and fields[7] == ask then redis.call('LREM', line, 1, entry) end
end
leave_line(name)
return ''
