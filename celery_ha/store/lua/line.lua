-- Included by the scripts that free or ask for locks; after common. The line of a lock, first come, first served.
-- An entry is a sequence of netstrings (https://cr.yp.to/proto/netstrings.txt, without the comma):
--   "call", lease, claim, task, inherit, most, ask      a caller that waits: the token goes to list `answer:<ask>`
--   "task", list, bell, task, inherit, payload, since   a parked message: it goes back to the front of `list`
-- The form is frozen, as that of in-flight records is: another version must be able to hand on what waits. Fields are
-- only added, at the end: `since` (microseconds) is not in entries of the first version.

-- Seconds for which a caller may be late in fetching its answer.
local ANSWER_TTL = 60

local function pack_entry(fields)
  local packed = {}
  for i, field in ipairs(fields) do packed[i] = #field .. ':' .. field end
  return table.concat(packed)
end

local function unpack_entry(entry)
  local fields, at = {}, 1
  while at <= #entry do
    local colon = string.find(entry, ':', at, true)
    local length = tonumber(string.sub(entry, at, colon - 1))
    fields[#fields + 1] = string.sub(entry, colon + 1, colon + length)
    at = colon + length + 1
  end
  return fields
end

local function join_line(name, limit, fields)
  redis.call('RPUSH', key('line:' .. name), pack_entry(fields))
  redis.call('HSET', key('lines'), name, limit)
end

-- Whether a caller stands in line: the last field of its entry is the id of its ask.
local function stands(name, ask)
  for _, entry in ipairs(redis.call('LRANGE', key('line:' .. name), 0, -1)) do
    if string.sub(entry, -#ask) == ask and string.sub(entry, 1, 6) == '4:call' then return true end
  end
  return false
end

local function leave_line(name)
  if redis.call('EXISTS', key('line:' .. name)) == 0 then redis.call('HDEL', key('lines'), name) end
end

-- Put a parked message to the front of its queue. False: the queue cannot be written, its key may be somebody else's
-- by now; an error in the middle of a script would undo nothing.
local function put_back(list, payload)
  return type(redis.pcall('RPUSH', list, payload)) == 'number'
end

-- Hand a free slot to the first in line that can take it (rule 9). Returns whether anybody did.
-- In quiet time nothing is granted (rule 12): callers stay in line, and the sweep comes back for them. A
-- message may go: its task is refused, and asks again.
local function hand_on(id)
  local name = name_of(id)
  local line = key('line:' .. name)
  local entry = redis.call('LINDEX', line, 0)
  while entry do
    local kind, a, b, c, d, e, f = unpack(unpack_entry(entry))
    if kind == 'call' and is_quiet() then return false end
    redis.call('LPOP', line)
    if kind == 'task' then
      if not put_back(a, e) then
        redis.call('LPUSH', line, entry)
        return false
      end
      leave_line(name)
      entrust(id, c, redis.call('GET', key('token')) or '0', tonumber(d), f)
      if redis.call('ZADD', b, 0, '1') == 1 then redis.call('EXPIRE', b, 3600) end
      return true
    end
    leave_line(name)
    -- Whoever has not said lately that it waits may be gone, and would hold the lock for as long as its lease lives.
    if is_open(a) and redis.call('EXISTS', key('here:' .. f)) == 1 and redis.call('EXISTS', key('ended:' .. b)) == 0 then
      redis.call('DEL', key('here:' .. f))
      redis.call('RPUSH', key('answer:' .. f), grant(id, a, b, c, d, e, f))
      redis.call('EXPIRE', key('answer:' .. f), ANSWER_TTL)
      return true
    end
    redis.call('DEL', key('here:' .. f))
    entry = redis.call('LINDEX', line, 0)
  end
  return false
end

local function free_lock(id, lock)
  drop_lock(id, lock)
  hand_on(id)
end

-- Hand on every slot of a lock that is free. Returns how many.
local function serve_line(name, limit)
  local served = 0
  for slot = 0, limit - 1 do
    local id = slot_id(name, slot)
    local lock = lock_of(id)
    if lock and is_stranded(lock) then
      drop_lock(id, lock)
      lock = nil
    end
    if not lock and hand_on(id) then served = served + 1 end
  end
  return served
end

-- Remember that a claim is over, and free its locks if its lease is open; returns how many.
local function end_claim(claim)
  local freed = 0
  redis.call('SET', key('ended:' .. claim), '1', 'EX', ENDED_TTL)
  if not is_open(claim:match('^(.*)%.[^.]*$') or claim) then return 0 end
  for _, id in ipairs(redis.call('SMEMBERS', key('held:' .. claim))) do
    local lock = lock_of(id)
    if lock and lock.claim == claim then
      free_lock(id, lock)
      freed = freed + 1
    end
  end
  -- What is left is a lock that was given up before, by max_hold.
  redis.call('DEL', key('held:' .. claim))
  redis.call('SREM', key('claims:' .. claim:match('^(.*)%.[^.]*$')), claim)
  return freed
end

-- Put the messages of a line back to the front of their queues, in order: nobody is left who would wake them.
local function pour(name)
  local entry = redis.call('RPOP', key('line:' .. name))
  while entry do
    local kind, list, bell, _, _, payload, ask = unpack(unpack_entry(entry))
    if kind == 'task' then
      if not put_back(list, payload) then
        redis.call('RPUSH', key('line:' .. name), entry)
        return
      end
      if redis.call('ZADD', bell, 0, '1') == 1 then redis.call('EXPIRE', bell, 3600) end
    else
      redis.call('DEL', key('here:' .. ask)) -- it does not stand here any more, and asks again
    end
    entry = redis.call('RPOP', key('line:' .. name))
  end
  leave_line(name)
end
