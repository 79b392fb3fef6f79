-- reserve: hold the lowest free slots of the quota that rules now, under a lease.
-- KEYS
--   subject_key   hash of the subject
--   changed_key   set of the shard's subjects that sync has to look at
-- ARGV
--   subject       member for changed_key
--   amount        slots wanted, 1 to 1000; fewer are held where fewer are free or their ranges are more than 8
--   hold_id       new for every attempt; the same id again gives the first answer again
--   lease_ms      how long the hold lives, 1 to 86400000
--   skew_us          how near to a boundary FULL is not to be believed, 0 to 3600000000 microseconds
-- Returns
--   SLOTS, FULL, BUSY, EXPIRED or BOUNDARY:quota:version:limit:used:held:changes:ranges   no ranges but of SLOTS
--   NO_QUOTA:version:changes
--   UNKNOWN
--   changes: milliseconds until another quota, or none, rules; '' where no change is known
local subject_key, changed_key = KEYS[1], KEYS[2]
local subject, amount, hold_id, lease_ms, skew_us = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local MAX_RANGES = 8
local ANSWER = '%s:%s:%s:%s:%d:%d:%s:%s'
if not amount or amount % 1 ~= 0 or amount < 1 or amount > 1000 then
  return redis.error_reply('QUOTA amount must be an integer from 1 to 1000')
end
if not lease_ms or lease_ms % 1 ~= 0 or lease_ms < 1 or lease_ms > 86400000 then
  return redis.error_reply('QUOTA lease_ms must be an integer from 1 to 86400000')
end
if not skew_us or skew_us % 1 ~= 0 or skew_us < 0 or skew_us > 3600000000 then
  return redis.error_reply('QUOTA skew_us must be an integer from 0 to 3600000000')
end
if #hold_id < 1 or #hold_id > 64 then return redis.error_reply('QUOTA hold_id must have 1 to 64 bytes') end

local found = redis.call('HMGET', subject_key, 'd', 'h' .. hold_id)
local document, hold = found[1], found[2]
if not document then return 'UNKNOWN' end
local version = string.match(document, '^%d+')
-- include: rule
local ranges
if hold then
  quota, ranges = string.match(hold, '^(%d+):%d+:(.*)$')
  limit, usable = string.match(document, '[|;]' .. quota .. ':[^:]+:[^:]*:([^:]*):([^;]*)')
  usable = usable == '' and 4503599627370495 or usable == '=' and limit or usable
end
if not quota then return 'NO_QUOTA:' .. version .. ':' .. changes end
-- include: free
if hold then return string.format(ANSWER, 'SLOTS', quota, version, limit, usable - free - held, held, changes, ranges) end
if room <= 0 then
  -- include: refusal
  return string.format(ANSWER, refusal, quota, version, limit, usable - free - held, held, changes, '')
end

local wanted, count = math.min(amount, room), 0
while wanted > 0 and lo ~= '' and count < MAX_RANGES do
  local last = math.min(hi, lo + wanted - 1)
  local size, range = last - lo + 1, string.format('%d-%d', lo, last)
  ranges, count = ranges and ranges .. ',' .. range or range, count + 1
  free, held, wanted = free - size, held + size, wanted - size
  if last < hi + 0 then
    lo = last + 1
  else
    lo, hi, tail = string.match(tail, '^(%d*)%-?(%d*),?(.*)$')
  end
end

-- Where somebody else wrote the hash it may have no range for what it says is free: the answer shows that.
ranges = ranges or ''

local expires = math.floor(now / 1000) + lease_ms
earliest = holds == 0 and expires or math.min(earliest, expires)
holds = holds + 1
-- include: keep
redis.call('HSET', subject_key, 'q' .. quota, state, 'h' .. hold_id, string.format('%s:%d:%s', quota, expires, ranges))
redis.call('SADD', changed_key, subject)
return string.format(ANSWER, 'SLOTS', quota, version, limit, usable - free - held, held, changes, ranges)
