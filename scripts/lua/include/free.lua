-- The state of the quota that rules, with the first of its free ranges apart. Reads subject_key, quota, limit, usable.
-- Makes free, held, holds, earliest, lo, hi (texts, '' where nothing is free), tail (the other ranges), and
-- room: slots that may be handed out. What comes back after a limit was lowered is free again, and may be more than the
-- new limit leaves.
local state = redis.call('HGET', subject_key, 'q' .. quota)
if not state then return 'UNKNOWN' end
local free, held, holds, earliest, lo, hi, tail = string.match(state, '^(%d+):(%d+):(%d+):(%d+):(%d*)%-?(%d*),?(.*)$')
free, held, holds = free + 0, held + 0, holds + 0
local room = limit == '' and free or math.min(free, limit - (usable - free))
