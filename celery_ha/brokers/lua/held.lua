-- What the broker has in flight for a lease, without the payloads (rule 2).
--
-- KEYS[1] in-flight of this lease (hash)
-- Returns { claim, started, claim, started, ... }

local held = redis.call('HGETALL', KEYS[1])
for at = 2, #held, 2 do held[at] = string.sub(held[at], 2, 2) end
return held
