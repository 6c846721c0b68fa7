-- Become leader if the office is vacant.
-- KEYS[1]  prefix
-- ARGV[1]  lease of the candidate
-- Returns  the new term; the current one if the candidate already leads; 0 refused

-- include: common
-- include: members

local lease = ARGV[1]
local holder, term = leader()
if not is_open(lease) then return 0 end
if holder == lease then return tonumber(term) end
if holder ~= '' and is_open(holder) then return 0 end
return take_office(lease)
