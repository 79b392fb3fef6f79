-- snapshots: read the whole hashes of subjects of one shard, with the time of the server that their leases are measured by.
-- KEYS
--   subject_keys...   hash of each subject
-- ARGV
-- Returns
--   {now in milliseconds, {field, value, field, value, ...}, ...}, one list for each subject: empty where the hash is gone,
--   nil where the key holds something else
local subject_keys = KEYS
local reply, time = {}, redis.call('TIME')
reply[1] = time[1] * 1000 + math.floor(time[2] / 1000)
for i, subject_key in ipairs(subject_keys) do
  local hash = redis.pcall('HGETALL', subject_key)
  reply[i + 1] = not hash.err and hash
end
return reply
