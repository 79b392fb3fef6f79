-- unmark: take a subject off the set of changed ones, where nothing changed since its counts were read.
-- KEYS
--   subject_key   hash of the subject
--   changed_key   set of the shard's subjects that sync has to look at
-- ARGV
--   subject       member of changed_key
--   seen...       two values for each field that the counts were computed from: its name and its value then
-- Returns
--   1 where the mark went, 0 where it stays
local subject_key, changed_key = KEYS[1], KEYS[2]
local subject, seen = ARGV[1], ARGV
for i = 2, #seen, 2 do
  if redis.call('HGET', subject_key, seen[i]) ~= seen[i + 1] then return 0 end
end
return redis.call('SREM', changed_key, subject)
