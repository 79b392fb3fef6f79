-- snapshot: read the whole hash of a subject, with the time of the server that its leases are measured by.
-- KEYS
--   subject_key   hash of the subject
-- ARGV
-- Returns
--   {now in milliseconds, field, value, field, value, ...}; the time alone where the hash is gone
local subject_key = KEYS[1]
-- include: state
local reply = redis.call('HGETALL', subject_key)
table.insert(reply, 1, math.floor(now_microseconds() / 1000))
return reply
