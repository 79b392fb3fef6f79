-- settle: end a hold; what comes back is free again, the rest counts as used.
-- KEYS
--   subject_key   hash of the subject
-- ARGV
--   hold_id       the hold to end; one that is not there (settled, reclaimed, lost) changes nothing
--   returned      ranges that were not used, '' for none; only what the hold still has comes back
-- Returns
--   1 where the hold was ended, 0 where it was not there
local subject_key = KEYS[1]
local hold_id, returned = ARGV[1], ARGV[2]
-- A hold has at most 1000 slots, which are at most 500 ranges of 34 bytes.
if #returned > 17000 then return redis.error_reply('QUOTA returned must be at most 500 ranges') end

local hold = redis.call('HGET', subject_key, 'h' .. hold_id)
if not hold then return 0 end
redis.call('HDEL', subject_key, 'h' .. hold_id)
local quota, kept = string.match(hold, '^(%d+):%d+:(.*)$')
local state = redis.call('HGET', subject_key, 'q' .. quota)
if not state then return 1 end
local free, held, holds, earliest, ranges = string.match(state, '^(%d+):(%d+):(%d+):(%d+):(.*)$')

local first, last = string.match(kept, '^(%d+)%-(%d+)$')
if returned == '' and first then
  held = held - (last - first + 1)
else
  -- include: ranges
  local slots = parse(kept)
  local back = subtract(slots, subtract(slots, union(parse(returned))))
  held = held - size(slots)
  local lo, rest = string.match(ranges, '^(%d+)(-.*)$')
  if #back == 1 and lo and back[1][2] + 1 == tonumber(lo) then
    free, ranges = free + size(back), string.format('%d', back[1][1]) .. rest
  elseif #back > 0 then
    local all = parse(ranges)
    for _, range in ipairs(back) do all[#all + 1] = range end
    all = union(all)
    free, ranges = size(all), format(all)
  end
end
-- Where somebody else wrote the hash its numbers may not add up: they stay readable, for absorb to put them right.
held, holds = math.max(0, held), math.max(0, holds - 1)
if holds == 0 then earliest = 0 end
redis.call('HSET', subject_key, 'q' .. quota, string.format('%d:%d:%d:%d:%s', free, held, holds, earliest, ranges))
return 1
