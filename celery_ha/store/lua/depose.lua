-- Take the office from a leader that still looks as it was judged.
-- KEYS[1]  prefix
-- ARGV[1]  lease of the candidate
-- ARGV[2]  lease of the leader
-- ARGV[3]  its term
-- ARGV[4]  rounds it had finished
-- ARGV[5]  '1': it is judged dead and fenced in this step (rule 10); '0': its rounds stood still
-- ARGV[6]  its renewal counter
-- ARGV[7]  its connections, separated by spaces
-- ARGV[8]  reason (JSON string)
-- Returns  the new term; the current one if the candidate already leads; 0 refused

-- include: common
-- include: members

local lease, judged, term, rounds, fence, counter, conns, reason = unpack(ARGV)
local holder, current, finished = leader()
if holder == '' or not is_open(lease) then return 0 end
if holder == lease then return tonumber(current) end
if holder ~= judged or current ~= term then return 0 end
if fence == '1' then
  if not as_judged(judged, counter, conns) then return 0 end
elseif finished ~= rounds then
  return 0
end
local new_term = take_office(lease)
if fence == '1' then fence_member(judged, new_term, reason) end
return new_term
