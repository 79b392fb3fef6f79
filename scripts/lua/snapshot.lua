-- snapshot: read the whole hash of a subject, with the time of the server that its leases are measured by.
-- KEYS
--   subject_key   hash of the subject
-- ARGV
-- Returns
--   {now in milliseconds, field, value, field, value, ...}; the time alone where the hash is gone
local subject_key = KEYS[1]
local reply, time = redis.call('HGETALL', subject_key), redis.call('TIME')
table.insert(reply, 1, time[1] * 1000 + math.floor(time[2] / 1000))
return reply
