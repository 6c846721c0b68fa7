-- End attempts of an open lease.
-- KEYS[1]  prefix
-- ARGV[1]  lease   ARGV[2...] endings, as in attempts.lua
-- Returns  1; 0 the lease is not open, nothing changed

-- include: common
-- include: attempts

if not is_open(ARGV[1]) then return 0 end
settle_all(ARGV[1], 2)
return 1
