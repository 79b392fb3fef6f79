-- unmark: take subjects of one shard off the set of changed ones, where nothing changed since their counts were read.
-- KEYS
--   changed_key       set of the shard's subjects that sync has to look at
--   subject_keys...   hash of each subject
-- ARGV
--   seen...   for each subject: its member of changed_key, '' where that is to stay; how many fields follow; and two values
--             for each field that its counts were computed from, the definitions first: its name and its value then
-- Returns
--   for each subject 1 where nothing changed; 0 where a count, 2 where the definitions have, and the mark stays
local changed_key, subject_keys = KEYS[1], KEYS
local seen = ARGV

local function compare(subject_key, first, count)
  local fields = {}
  for i = 1, count do fields[i] = seen[first + 2 * i - 2] end
  local values = redis.pcall('HMGET', subject_key, unpack(fields))
  if values[1] ~= seen[first + 1] then return 2 end
  for i = 2, count do
    if values[i] ~= seen[first + 2 * i - 1] then return 0 end
  end
  return 1
end

local at, same, replies = 1, {}, {}
for i = 2, #subject_keys do
  local subject, count = seen[at], tonumber(seen[at + 1])
  replies[i - 1] = compare(subject_keys[i], at + 2, count)
  if replies[i - 1] == 1 then same[#same + 1] = subject end
  at = at + 2 + 2 * count
end
if #same > 0 then redis.call('SREM', changed_key, unpack(same)) end
return replies
