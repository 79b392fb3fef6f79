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
-- include: ranges
-- include: state
if #returned > 300 then return redis.error_reply('QUOTA returned must be at most 8 ranges') end

local hold = redis.call('HGET', subject_key, 'h' .. hold_id)
if not hold then return 0 end
redis.call('HDEL', subject_key, 'h' .. hold_id)
local quota, kept = string.match(hold, '^(%d+):%d+:(.*)$')
local text = redis.call('HGET', subject_key, 'q' .. quota)
if not text then return 1 end

local state, held = read_state(text), parse(kept)
local back = subtract(held, subtract(held, union(parse(returned))))
-- Where somebody else wrote the hash its numbers may not add up: they stay readable, for absorb to put them right.
state.held = math.max(0, state.held - size(held))
state.holds = math.max(0, state.holds - 1)
if #back > 0 then
  state.free = state.free + size(back)
  local lo, rest = string.match(state.ranges, '^(%d+)(-.*)$')
  if not lo then
    state.ranges = format(back)
  elseif #back == 1 and back[1][2] + 1 == tonumber(lo) then
    state.ranges = string.format('%d', back[1][1]) .. rest
  else
    local free = parse(state.ranges)
    for _, range in ipairs(back) do free[#free + 1] = range end
    free = union(free)
    state.free, state.ranges = size(free), format(free)
  end
end
redis.call('HSET', subject_key, 'q' .. quota, write_state(state))
return 1
