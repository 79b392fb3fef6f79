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
--   GRANTED:quota:limit:used:held
--   FULL, BUSY or EXPIRED:quota:limit:used:held:changes
--   NO_QUOTA
--   REUSED:amount   the idempotency key was used with another amount
--   UNKNOWN
--   changes: milliseconds until another quota, or none, rules; '' where no change is known
local subject_key, changed_key, answer_key = KEYS[1], KEYS[2], KEYS[3]
local subject, amount, remember_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if not amount or amount % 1 ~= 0 or amount < 1 or amount > 1000000000000 then
  return redis.error_reply('QUOTA amount must be an integer from 1 to 10^12')
end
if not remember_ms or remember_ms % 1 ~= 0 or remember_ms < 0 or remember_ms > 604800000 then
  return redis.error_reply('QUOTA remember_ms must be an integer from 0 to 604800000')
end

local document = redis.call('HGET', subject_key, 'd')
if not document then return 'UNKNOWN' end
if remember_ms > 0 then
  local kept = redis.call('GET', answer_key)
  if kept then
    local kept_amount, granted = string.match(kept, '^(%d+):(.*)$')
    if tonumber(kept_amount) ~= amount then return 'REUSED:' .. kept_amount end
    return granted == ':::' and 'NO_QUOTA' or 'GRANTED:' .. granted
  end
end

-- include: rule
if not quota then
  if remember_ms > 0 then redis.call('SET', answer_key, amount .. '::::', 'PX', remember_ms) end
  return 'NO_QUOTA'
end
-- include: free
local used = usable - free - held
if room < amount then
  local skew_us = 0
  -- include: refusal
  return string.format('%s:%s:%s:%d:%d:%s', refusal, quota, limit, used, held, changes)
end

local wanted = amount
while wanted > 0 do
  local size = hi - lo + 1
  if wanted < size then
    lo, wanted = lo + wanted, 0
  else
    wanted = wanted - size
    lo, hi, tail = string.match(tail, '^(%d*)%-?(%d*),?(.*)$')
  end
end
free, used = free - amount, used + amount
-- include: keep
redis.call('HSET', subject_key, 'q' .. quota, state)
redis.call('SADD', changed_key, subject)
local granted = string.format('%s:%s:%d:%d', quota, limit, used, held)
if remember_ms > 0 then redis.call('SET', answer_key, amount .. ':' .. granted, 'PX', remember_ms) end
return 'GRANTED:' .. granted
