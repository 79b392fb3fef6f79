-- reserve: hold the lowest free slots of the quota that rules now, under a lease.
-- KEYS
--   subject_key   hash of the subject
--   changed_key   set of the shard's subjects that sync has to look at
-- ARGV
--   subject       member for changed_key
--   amount        slots wanted, 1 to 1000; fewer are held where fewer are free or their ranges are more than 8
--   hold_id       new for every attempt; the same id again gives the first answer again
--   lease_ms      how long the hold lives, 1 to 86400000
--   skew_us       how near to a boundary FULL is not to be believed, 0 to 3600000000
-- Returns
--   {'SLOTS', quota, version, limit, used, held, ranges}
--   {'FULL' | 'BUSY' | 'EXPIRED' | 'BOUNDARY', quota, version, limit, used, held}
--   {'NO_QUOTA', version}
--   {'UNKNOWN'}
local subject_key, changed_key = KEYS[1], KEYS[2]
local subject, amount, hold_id, lease_ms, skew_us = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
-- include: ranges
-- include: state
-- include: choose
local MAX_RANGES = 8

if not is_integer_between(amount, 1, 1000) then return redis.error_reply('QUOTA amount must be an integer from 1 to 1000') end
if not is_integer_between(lease_ms, 1, 86400000) then return redis.error_reply('QUOTA lease_ms must be an integer from 1 to 86400000') end
if not is_integer_between(skew_us, 0, 3600000000) then return redis.error_reply('QUOTA skew_us must be an integer from 0 to 3600000000') end
if #hold_id < 1 or #hold_id > 64 then return redis.error_reply('QUOTA hold_id must have 1 to 64 bytes') end

local found = redis.call('HMGET', subject_key, 'd', 'h' .. hold_id)
if not found[1] then return {'UNKNOWN'} end
local version, definitions = string.match(found[1], '^(%d+)|(.*)$')
local now = now_microseconds()
local active, is_near = choose(definitions, now, skew_us)

local function answer(word, quota, limit, usable, state, ranges)
  return {word, quota, version, limit, usable - state.free - state.held, state.held, ranges}
end

if found[2] then
  local quota, ranges = string.match(found[2], '^(%d+):%d+:(.*)$')
  local limit, usable = string.match(';' .. definitions, ';' .. quota .. ':%-?%d+:%-?%d*:(%d*):(%d+)')
  return answer('SLOTS', quota, limit, tonumber(usable), read_state(redis.call('HGET', subject_key, 'q' .. quota)), ranges)
end
if not active then return {'NO_QUOTA', version} end

local text = redis.call('HGET', subject_key, 'q' .. active.quota)
if not text then return {'UNKNOWN'} end
local state = read_state(text)
local most = available(active, state)
if most <= 0 then
  return answer(refusal(state, now, is_near), active.quota, active.limit, active.usable, state)
end

local asked = math.min(amount, most)
local wanted, granted, at = asked, {}, 1
while wanted > 0 and #granted < MAX_RANGES do
  local from, to, lo, hi = string.find(state.ranges, '^(%d+)-(%d+),?', at)
  if not from then break end
  lo, hi = tonumber(lo), tonumber(hi)
  local last = math.min(hi, lo + wanted - 1)
  granted[#granted + 1] = {lo, last}
  wanted = wanted - (last - lo + 1)
  if last < hi then
    local rest = string.sub(state.ranges, to + 1)
    state.ranges = string.format('%d-%d', last + 1, hi) .. (rest ~= '' and ',' .. rest or '')
    at = 1
    break
  end
  at = to + 1
end
if at > 1 then state.ranges = string.sub(state.ranges, at) end

local got, expires = asked - wanted, math.floor(now / 1000) + lease_ms
state.free, state.held = state.free - got, state.held + got
state.earliest = state.holds == 0 and expires or math.min(state.earliest, expires)
state.holds = state.holds + 1
local ranges = format(granted)
redis.call('HSET', subject_key, 'q' .. active.quota, write_state(state),
  'h' .. hold_id, string.format('%s:%d:%s', active.quota, expires, ranges))
redis.call('SADD', changed_key, subject)
return answer('SLOTS', active.quota, active.limit, active.usable, state, ranges)
