-- What is known of a message.
-- KEYS[1]  prefix
-- ARGV[1]  message
-- Returns  state and count, as in attempts.lua

-- include: common
-- include: attempts

local known = earlier(ARGV[1])
return { known.state, known.count }
