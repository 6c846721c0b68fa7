-- Append a message and ring its queue's bell.
--
-- KEYS[1] the list   KEYS[2] the queue's bell   KEYS[3] what this producer published last
-- ARGV[1] payload   ARGV[2] running number of this publish, or empty   ARGV[3] seconds to remember it
-- ARGV[4] the number before it
-- Returns 1; 0 if this number was seen before: nothing is added (rule 14).
--
-- A producer's publishes are numbered, and a number comes again only when its reply was lost, on the
-- same connection or on a later one. Remembered is "<highest>" while they came without a gap from 1 on,
-- else "<highest> <bits>": which of the 32 up to it were seen, the anti-replay window of RFC 4303,
-- 3.4.3. A number older than the window is added: twice is allowed where lost is not.

local remember
if ARGV[2] ~= '' then
  local seen = redis.call('GET', KEYS[3])
  remember = ARGV[2]
  if seen ~= ARGV[4] and (seen or ARGV[4] ~= '0') then
    local number = tonumber(ARGV[2])
    local highest, window = number, 1
    if seen then
      local last, bits = string.match(seen, '^(%d+) ?(%d*)$')
      last, bits = tonumber(last), tonumber(bits) or 4294967295
      local behind = last - number
      if behind < 0 then
        window = behind > -32 and bit.bor(bit.lshift(bits, -behind), 1) or 1
      elseif behind < 32 then
        local mark = bit.lshift(1, behind)
        if bit.band(bits, mark) ~= 0 then return 0 end
        highest, window = last, bit.bor(bits, mark)
      else
        highest, window = last, bits
      end
    end
    if window < 0 then window = window + 4294967296 end
    remember = string.format('%.0f %.0f', highest, window)
  end
end
redis.call('LPUSH', KEYS[1], ARGV[1]) -- first: one that is refused was not seen
if remember then redis.call('SET', KEYS[3], remember, 'EX', ARGV[3]) end
if redis.call('ZADD', KEYS[2], 0, '1') == 1 then
  redis.call('EXPIRE', KEYS[2], 3600)
end
return 1
