-- The attempts under a lease.
-- KEYS[1]  prefix
-- ARGV[1]  lease
-- Returns  claim, message and what is known of it, one after the other

-- include: common
-- include: attempts

local found, all = {}, redis.call('HGETALL', key('attempts:' .. ARGV[1]))
for i = 1, #all, 2 do
  local known = attempt_of(all[i + 1])
  local own = known and known.claim == all[i]
  for _, part in ipairs({ all[i], all[i + 1], own and known.what or '' }) do found[#found + 1] = part end
end
return found
