-- Append a message and ring its queue's bell.
--
-- KEYS[1] the list   KEYS[2] the queue's bell   KEYS[3] last publish id of this producer
-- ARGV[1] payload   ARGV[2] publish id, or empty   ARGV[3] seconds to remember it
-- Returns 1; 0 if the producer's last publish had the same id (its reply was lost): nothing is added.
-- One producer publishes one message at a time, so its last id is all that a retry can repeat;
-- after Kafka's idempotent producer (KIP-98), which also keeps one sequence number a producer.

if ARGV[2] ~= '' then
  if redis.call('GET', KEYS[3]) == ARGV[2] then return 0 end
  redis.call('SET', KEYS[3], ARGV[2], 'EX', ARGV[3])
end
redis.call('LPUSH', KEYS[1], ARGV[1])
if redis.call('ZADD', KEYS[2], 0, '1') == 1 then
  redis.call('EXPIRE', KEYS[2], 3600)
end
return 1
