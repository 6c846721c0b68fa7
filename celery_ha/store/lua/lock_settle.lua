-- Settle the locks of a lease that is not open any more (rule 8).
-- KEYS[1]  prefix
-- ARGV[1]    lease
-- ARGV[2..]  claim, task id of each task that was requeued: its locks are held in trust; all others are freed
-- Returns    how many locks the lease had; 0 while it is open

-- include: common
-- include: locks
-- include: line

local lease, settled, task_of = ARGV[1], 0, {}
if is_open(lease) then return 0 end
for i = 2, #ARGV, 2 do task_of[ARGV[i]] = ARGV[i + 1] end

for _, claim in ipairs(redis.call('SMEMBERS', key('claims:' .. lease))) do
  for _, id in ipairs(redis.call('SMEMBERS', key('held:' .. claim))) do
    local lock, task = lock_of(id), task_of[claim]
    if lock and lock.lease == lease and lock.claim == claim then
      settled = settled + 1
      if task and lock.inherit > 0 then entrust(id, task, lock.token, lock.inherit) else free_lock(id, lock) end
    end
  end
  redis.call('DEL', key('held:' .. claim))
end
redis.call('DEL', key('claims:' .. lease))
return settled
