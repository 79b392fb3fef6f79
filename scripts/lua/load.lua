-- load: make the hashes of subjects of one shard that Redis knows nothing of, as absorb makes those that it knows.
-- The caller found them gone, then read definitions, version and ledger in one snapshot.
-- KEYS
--   changed_key       set of the shard's subjects that sync has to look at
--   subject_keys...   hash of each subject
-- ARGV
--   token       new for every call
--   values...   for each subject: its member of changed_key, the version of the definitions, and how many quotas follow;
--               then four for each quota, latest start first: quota, 'quota:start:end:limit:usable', how many slots are
--               free, and their ranges
-- Returns
--   for each subject 1 where it was loaded, 0 where there is something by now
local changed_key, subject_keys = KEYS[1], KEYS
local token, values = ARGV[1], ARGV
-- include: state

local function make(at)
  local set, definitions = {'a', token, 'd', ''}, {}
  for i = 1, tonumber(values[at + 2]) do
    local quota, free, ranges = values[at + 4 * i - 1], tonumber(values[at + 4 * i + 1]), values[at + 4 * i + 2]
    definitions[i] = values[at + 4 * i]
    set[#set + 1] = 'q' .. quota
    set[#set + 1] = write_state({free = free, held = 0, holds = 0, earliest = 0, ranges = ranges})
  end
  set[4] = values[at + 1] .. '|' .. table.concat(definitions, ';')
  return set
end

local sets, loaded, replies, at = {}, {}, {}, 2
for i = 2, #subject_keys do
  local is_gone = redis.call('EXISTS', subject_keys[i]) == 0
  if is_gone then
    sets[subject_keys[i]] = make(at)
    loaded[#loaded + 1] = values[at]
  end
  replies[i - 1] = is_gone and 1 or 0
  at = at + 3 + 4 * values[at + 2]
end
-- Marks first: where a write fails half-way, sync looks at too many subjects rather than at too few.
if #loaded > 0 then redis.call('SADD', changed_key, unpack(loaded)) end
for subject_key, set in pairs(sets) do
  for i = 1, #set, 1000 do redis.call('HSET', subject_key, unpack(set, i, math.min(i + 999, #set))) end
end
return replies
