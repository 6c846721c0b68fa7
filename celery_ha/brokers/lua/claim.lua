-- Settle ended claims, then hand messages to a lease and record them as in flight by it, in one step.
--
-- KEYS[1] open leases (hash)   KEYS[2] in-flight of this lease (hash)   KEYS[3] the last claim's number
-- ARGV[1] lease   ARGV[2] limit   ARGV[3] free slots   ARGV[4] key prefix of queues
-- ARGV[5] prefix of our names   ARGV[6] separator   ARGV[7] priority steps, "0 3 6 9"
-- ARGV[8] dead letters kept   ARGV[9] number of queues   ARGV[10...] queues, then endings (_settle)
-- Returns nil if the lease is not open (nothing happened); else
--   { first claim number, { queues that may hold more }, source, started, payload, source, ... }
-- A queue that cannot be read is an error only where no other had a message.
-- include: _record
-- include: _settle

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return nil end
local count = tonumber(ARGV[9])
settle(KEYS[2], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[8]), 10 + count)

local limit, slots = tonumber(ARGV[2]), tonumber(ARGV[3])
local prefix, sep = ARGV[4], ARGV[6]
local steps = {}
for step in string.gmatch(ARGV[7], '%d+') do steps[#steps + 1] = step end
local function source_of(queue, step) return step == '0' and queue or queue .. sep .. step end

-- Priority first, then the queues in the order given (the caller rotates them).
local found, last, refused = {}, nil, nil
local emptied = {}
for at, step in ipairs(steps) do
  for index = 10, 9 + count do
    local want = limit - #found / 3
    if want == 0 then break end
    local source = source_of(ARGV[index], step)
    local popped = redis.pcall('RPOP', prefix .. source, want)
    -- Not a list, say. An error now would undo nothing: what was popped before must be recorded all the same.
    if popped and popped.err then refused, popped = popped, nil end
    if popped then
      for _, payload in ipairs(popped) do
        -- A claim for a free slot carries the mark "started", unless it plainly waits for an ETA or
        -- was interrupted before: if it kills its worker when it is opened, what was claimed with it
        -- must not count as started. The hint may only err to "not marked", which costs a question.
        local started = '0'
        if #found / 3 < slots and string.find(payload, '"eta": null', 1, true)
          and not string.find(payload, '"redelivered": true', 1, true) then
          started = '1'
        end
        found[#found + 1] = source
        found[#found + 1] = started
        found[#found + 1] = payload
      end
      last = index
    end
    if not popped or #popped < want then emptied[index] = at end
  end
end

if refused and #found == 0 then return refused end

local hot, rest = {}, false
for index = 10, 9 + count do
  if emptied[index] ~= #steps then
    local keys = {}
    for at, step in ipairs(steps) do keys[at] = prefix .. source_of(ARGV[index], step) end
    if redis.call('EXISTS', unpack(keys)) > 0 then
      hot[#hot + 1] = ARGV[index]
      rest = rest or index == last
    end
  end
end

local n = #found / 3
local first = 0
if n > 0 then
  -- Numbers grow, and at least as fast as the clock: a server that lost its memory, or its last
  -- second, must not give a number again. A late ack of the old claim would end the new one.
  -- (The hybrid clocks of Kulkarni et al., 2014, for one process.)
  local now = redis.call('TIME')
  first = math.max(tonumber(redis.call('GET', KEYS[3]) or 0) + 1, tonumber(now[1]) * 1e6 + tonumber(now[2]))
  redis.call('SET', KEYS[3], string.format('%.0f', first + n - 1))
  local record = {}
  for i = 1, n do
    record[2 * i - 1] = ARGV[1] .. '.' .. string.format('%.0f', first + i - 1)
    record[2 * i] = pack(found[3 * i - 1], found[3 * i - 2], found[3 * i])
  end
  redis.call('HSET', KEYS[2], unpack(record))
  -- We took the bell and are full: whoever is idle should come for the rest.
  if n == limit and rest then ring(ARGV[5] .. 'bell:', ARGV[last], sep) end
end
return { first, hot, unpack(found) }
