-- Everything an observer has to know, except which connections are there.
-- KEYS[1]  prefix
-- ARGV[1]  '<epoch>:<version>' of the node records the caller already has
-- Returns  {epoch, version, counters, connections, fenced, leader's lease, term, rounds, doubted, nodes, rings}
--          counters and connections are text, lease and value by turns, one a line; fenced and nodes
--          are lists of lease, record; doubted is a list of leases; nodes is '' if the caller has them, and then so is
--          rings (JSON)

-- include: common
-- include: members

-- One string instead of thousands of replies: the caller looks several times a second.
local function lines(name)
  return table.concat(redis.call('HGETALL', key(name)), '\n')
end

local epoch = redis.call('GET', key('epoch')) or ''
local version = redis.call('GET', key('version')) or '0'
local nodes, rings = '', ''
-- Node records change only together with the version; connections and counters change alone. Rings that are written
-- down later are what everybody works out from these.
if epoch .. ':' .. version ~= ARGV[1] then
  nodes = redis.call('HGETALL', key('nodes'))
  rings = redis.call('GET', key('rings')) or ''
end
local lease, term, rounds = leader()
local fenced = redis.call('HGETALL', key('fenced'))
local now = micros()
local doubted = redis.call('ZRANGEBYSCORE', key('doubts'), integer(now), integer(now + DOUBT))
return {epoch, version, lines('leases'), lines('conns'), fenced, lease, term, rounds, doubted, nodes, rings}
