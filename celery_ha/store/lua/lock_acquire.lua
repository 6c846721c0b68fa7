-- Grant a lock if it is free, the asker's already, or held in trust for its task (rules 4, 8, 12). A claim
-- whose end was told, and an ask that was given up, get nothing any more. A free lock that others stand in line
-- for is theirs (rule 9).
-- KEYS[1]  prefix
-- ARGV[1]  name
-- ARGV[2]  lease, ARGV[3] claim, ARGV[4] task of the asker
-- ARGV[5]  microseconds for which the lock stays in trust if the asker dies
-- ARGV[6]  run id of the server, '' if unknown
-- ARGV[7]  how many may hold it   ARGV[8] microseconds after which it is free again, 0: never
-- ARGV[9]  id of the ask, the same when it is repeated
-- ARGV[10] milliseconds for which the asker stands in line unless it says that it still does, 0: it does not
-- Returns  the token of a lock that nobody else had to do with; else
--          {token, again, lease, claim, task, in line, waited}; token '' is busy, then lease, claim and task name a
--          holder ('' unknown) and the next says whether the asker stands in line; -1: it need not ask again; waited
--          is only there for a message that was parked: for so many microseconds

-- include: common
-- include: locks

local name, lease, claim, task, inherit, run, limit, most, ask, stay = unpack(ARGV)
local quiet = note_run(run)
local is_known = is_open(lease)
-- One question for what is hardly ever there.
local ended, forgot, line = key('ended:' .. claim), key('forgot:' .. ask), key('line:' .. name)
if is_known and not quiet and limit == '1' then
  local id = slot_id(name, 0)
  if redis.call('EXISTS', ended, forgot, line, key('lock:' .. id)) == 0 then
    return grant(id, lease, claim, task, inherit, most, ask)
  end
end

-- What follows is worked out only for the rest, so that a free lock does not pay for it.
-- include: line

limit = tonumber(limit)
local busy = {'', 0, '', '', '', 0}
if not is_known then
  if is_fenced(lease) then busy[6] = -1 end
  return busy
end
if redis.call('EXISTS', ended, forgot) > 0 then
  busy[6] = -1
  return busy
end

-- Of several slots the best: our own, one that is due to us, a free one.
local function choose()
  local due, free, other
  for slot = 0, limit - 1 do
    local id = slot_id(name, slot)
    local lock = lock_of(id)
    if not lock or is_stranded(lock) then
      free = free or {id = id, lock = lock}
    elseif is_held_by(lock, lease, claim, task) then
      return lock
    elseif is_due_to(lock, task) then
      due = due or {id = id, lock = lock}
    else
      other = other or lock
    end
  end
  return nil, due, free, other
end

local own, due, free, other = choose()
if not own and not due and free and redis.call('EXISTS', line) == 1 then
  serve_line(name, limit)
  own, due, free, other = choose()
end
-- The same ask again: its answer was lost, the lock is its own. Another ask of the same claim only borrows it.
if own then return {own.token, own.ask == ask and 0 or 1, '', '', '', 0} end
local chosen = due or free
if not chosen then
  if stay ~= '0' then
    join_line(name, limit, {'call', lease, claim, task, inherit, most, ask})
    redis.call('SET', key('here:' .. ask), '1', 'PX', stay)
  end
  return {'', 0, other.lease, other.claim, other.task, stay ~= '0' and 1 or 0}
end
if quiet then return busy end
local since = due and tonumber(redis.call('HGET', key('lock:' .. due.id), 'since') or '')
if chosen.lock then drop_lock(chosen.id, chosen.lock) end
local token = grant(chosen.id, lease, claim, task, inherit, most, ask)
return {token, 0, '', '', '', 0, since and math.max(micros() - since, 0)}
