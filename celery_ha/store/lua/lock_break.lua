-- Take a lock from its holders, whoever they are, hand it on, and note who did it.
-- KEYS[1]  prefix
-- ARGV[1]  name
-- ARGV[2]  the note (JSON, without its closing brace)
-- ARGV[3]  notes to keep   ARGV[4] seconds to keep them
-- ARGV[5..] slot, token as it was seen; a slot that has another token by now is left alone
-- Returns  how many slots were freed

-- include: common
-- include: locks
-- include: line

local freed = 0
for i = 5, #ARGV, 2 do
  local id = slot_id(ARGV[1], tonumber(ARGV[i]))
  local lock = lock_of(id)
  if lock and lock.token == ARGV[i + 1] then
    free_lock(id, lock)
    freed = freed + 1
  end
end
if freed > 0 then
  redis.call('LPUSH', key('releases'), ARGV[2] .. ',"freed":' .. freed
    .. ',"at":' .. string.format('%.6f', micros() / 1000000) .. '}')
  redis.call('LTRIM', key('releases'), 0, tonumber(ARGV[3]) - 1)
  redis.call('EXPIRE', key('releases'), ARGV[4])
end
return freed
