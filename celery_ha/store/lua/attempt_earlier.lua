-- What is known of a message.
-- KEYS[1]  prefix
-- ARGV[1]  message
-- Returns  state and count, as in attempts.lua; the lease under which an attempt runs, or ''

-- include: common
-- include: attempts

local known = earlier(ARGV[1])
return { known.state, known.count, known.state == 'r' and known.lease or '' }
