-- Free the locks of claims that ended (rule 5) and what is in trust for tasks that will not come back (rule 8).
-- The claims are remembered for a while: they get no lock any more, however late they ask.
-- KEYS[1]  prefix
-- ARGV[1]      number of claims
-- ARGV[2..]    the claims; only those of an open lease count, a fenced one is settled
-- ARGV[..]     task ids
-- Returns      how many locks were freed

-- include: common
-- include: locks
-- include: line

local claims, freed = tonumber(ARGV[1]), 0
for i = 2, claims + 1 do freed = freed + end_claim(ARGV[i]) end
for i = claims + 2, #ARGV do
  for _, id in ipairs(redis.call('SMEMBERS', key('trust:' .. ARGV[i]))) do
    local lock = lock_of(id)
    if lock and lock.lease == '' and lock.task == ARGV[i] then
      free_lock(id, lock)
      freed = freed + 1
    end
  end
end
return freed
