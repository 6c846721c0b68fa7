-- Step out of the line of a lock; it may have been granted meanwhile.
-- KEYS[1]  prefix
-- ARGV[1]  name   ARGV[2] list for the answer
-- Returns  the token, or '' if it was not granted: then it will not be
-- include: common
-- include: locks
-- include: line

local name, answer = unpack(ARGV)
local token = redis.call('LPOP', answer)
if token then return token end
local line = key('line:' .. name)
for _, entry in ipairs(redis.call('LRANGE', line, 0, -1)) do
  if unpack_entry(entry)[7] == answer then
    redis.call('LREM', line, 1, entry)
    break
  end
end
leave_line(name)
return ''
