-- End attempts, then write new ones down (rule 1).
-- KEYS[1]  prefix
-- ARGV[1]  lease   ARGV[2] how many new ones; of each four: claim, message, what to list it as (as in attempts.lua),
--          1: not after an end of the same message
-- ARGV[then...] endings, as in attempts.lua
-- Returns  for each: 1 written; 0 the lease is not open, nothing changed; -1 somebody else runs the message, or has

-- include: common
-- include: attempts

local lease, answers = ARGV[1], {}
local last = 2 + 4 * ARGV[2]

local function start(claim, message, listed, once)
  local known = earlier(message)
  if known.state == 'e' and once == '1' then return -1 end
  if known.state == 'r' then return known.claim == claim and 1 or -1 end
  redis.call('SET', key('try:' .. message), table.concat({ 'r', known.count, lease, claim }, ' '))
  redis.call('HSET', key('attempts:' .. lease), claim, listed)
  return 1
end

local open = is_open(lease)
if open then settle_all(lease, last + 1) end
for i = 3, last, 4 do
  answers[#answers + 1] = open and start(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) or 0
end
return answers
