-- Attempts at messages that the broker keeps itself (rule 17).
--   try:<message>     what is known of a message: "<state> <count> <lease> <claim>"
--                     state r: an attempt runs; w: the message waits; g: it waits, given back by somebody who
--                     lived; e: it came to its end
--   attempts:<lease>  hash: claim -> ["<message>", ...], of the attempts that run under the lease

local COUNTED = 604800

local function attempt_of(message)
  local record = redis.call('GET', key('try:' .. message))
  if not record then return nil end
  local state, count, lease, claim = string.match(record, '^(%a) (%d+) (%S*) (%S*)$')
  return { state = state, count = tonumber(count), lease = lease, claim = claim }
end

-- An attempt under a lease that is not open is over, and counts.
local function earlier(message)
  local known = attempt_of(message) or { state = 'w', count = 0 }
  if known.state == 'r' and not is_open(known.lease) then return { state = 'w', count = known.count + 1 } end
  return known
end

local function write_waiting(message, state, count)
  redis.call('SET', key('try:' .. message), state .. ' ' .. count .. '  ', 'EX', COUNTED)
end

-- One ending: a came to its end, R goes back and counts, r goes back and does not, u did not start.
local function settle_one(lease, letter, claim, memory)
  local index = key('attempts:' .. lease)
  local listed = redis.call('HGET', index, claim)
  if not listed then return end
  redis.call('HDEL', index, claim)
  local message = cjson.decode(listed)[1]
  local known = attempt_of(message)
  if not known or known.lease ~= lease or known.claim ~= claim then return end
  if letter == 'a' then
    redis.call('SET', key('try:' .. message), 'e 0  ', 'EX', memory)
  else
    write_waiting(message, is_open(lease) and 'g' or 'w', known.count + (letter == 'R' and 1 or 0))
  end
end

-- ARGV[from...] are endings: letter and claim, seconds.
local function settle_all(lease, from)
  for i = from, #ARGV, 2 do settle_one(lease, ARGV[i]:sub(1, 1), ARGV[i]:sub(2), ARGV[i + 1]) end
end
