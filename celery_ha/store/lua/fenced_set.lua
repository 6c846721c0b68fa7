-- Write a value unless a newer token has written before; the same token may write again.
-- KEYS[1]  hash: value, token
-- ARGV[1]  value
-- ARGV[2]  token; below 2^53, as tokens are until the year 2255
-- Returns  '' if it was written, else the token that was there

local seen = redis.call('HGET', KEYS[1], 'token')
if seen and tonumber(seen) > tonumber(ARGV[2]) then return seen end
redis.call('HSET', KEYS[1], 'value', ARGV[1], 'token', ARGV[2])
return ''
