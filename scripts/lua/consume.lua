-- consume: use slots of the quota that rules now, all or nothing, without a hold.
-- KEYS
--   subject_key   hash of the subject
--   changed_key   set of the shard's subjects that sync has to look at
--   answer_key    where the answer to this call's idempotency key is kept
-- ARGV
--   subject       member for changed_key
--   amount        slots wanted, 1 to 10^12
--   remember_ms   how long the answer is kept; 0 where the call has no idempotency key
-- Returns
--   {'GRANTED', quota, limit, used, held}
--   {'FULL' | 'BUSY' | 'EXPIRED', quota, limit, used, held}
--   {'NO_QUOTA'}
--   {'REUSED', amount}   the idempotency key was used with another amount
--   {'UNKNOWN'}
local subject_key, changed_key, answer_key = KEYS[1], KEYS[2], KEYS[3]
local subject, amount, remember_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
-- include: ranges
-- include: state
-- include: choose
if not is_integer_between(amount, 1, 1000000000000) then return redis.error_reply('QUOTA amount must be an integer from 1 to 10^12') end
if not is_integer_between(remember_ms, 0, 604800000) then return redis.error_reply('QUOTA remember_ms must be an integer from 0 to 604800000') end

local document = redis.call('HGET', subject_key, 'd')
if not document then return {'UNKNOWN'} end
if remember_ms > 0 then
  local kept = redis.call('GET', answer_key)
  if kept then
    local kept_amount, quota, limit, used, held = string.match(kept, '^(%d+):(%d*):(%d*):(%d*):(%d*)$')
    if tonumber(kept_amount) ~= amount then return {'REUSED', kept_amount} end
    if quota == '' then return {'NO_QUOTA'} end
    return {'GRANTED', quota, limit, tonumber(used), tonumber(held)}
  end
end

local function remember(quota, limit, used, held)
  if remember_ms > 0 then
    redis.call('SET', answer_key, string.format('%d:%s:%s:%s:%s', amount, quota, limit, used, held), 'PX', remember_ms)
  end
end

local now = now_microseconds()
local active = choose(document, now, 0)
if not active then
  remember('', '', '', '')
  return {'NO_QUOTA'}
end
local text = redis.call('HGET', subject_key, 'q' .. active.quota)
if not text then return {'UNKNOWN'} end
local state = read_state(text)
if available(active, state) < amount then
  return {refusal(state, now, false), active.quota, active.limit, active.usable - state.free - state.held, state.held}
end

local wanted, at = amount, 1
while wanted > 0 do
  local _, to, lo, hi = string.find(state.ranges, '^(%d+)-(%d+),?', at)
  lo, hi = tonumber(lo), tonumber(hi)
  if lo + wanted - 1 < hi then
    local rest = string.sub(state.ranges, to + 1)
    state.ranges = string.format('%d-%d', lo + wanted, hi) .. (rest ~= '' and ',' .. rest or '')
    wanted, at = 0, 1
  else
    wanted, at = wanted - (hi - lo + 1), to + 1
  end
end
if at > 1 then state.ranges = string.sub(state.ranges, at) end
state.free = state.free - amount
local used = active.usable - state.free - state.held
redis.call('HSET', subject_key, 'q' .. active.quota, write_state(state))
redis.call('SADD', changed_key, subject)
remember(active.quota, active.limit, string.format('%d', used), string.format('%d', state.held))
return {'GRANTED', active.quota, active.limit, used, state.held}
