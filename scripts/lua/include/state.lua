-- The hash of a subject:
--   d        'version|quota:start:end:limit:usable;...' latest start first; times in microseconds, 15e14 for many zeros (a
--            value of more than 64 bytes takes three times the memory); an empty end is no end, an empty limit is unlimited;
--            usable = slots that are not void, empty for all there can be, '=' for as many as the limit
--   a        a token, new with every absorb; none where there is no ledger
--   q<quota> 'free:held:holds:earliest:ranges': free slots, held slots, holds, no hold ends before earliest (ms), the free list
--   h<hold>  'quota:expires:ranges': what a hold keeps, and when its lease ends (ms)
-- used = usable - free - held.
local function now_microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function read_state(text)
  local free, held, holds, earliest, ranges = string.match(text, '^(%d+):(%d+):(%d+):(%d+):(.*)$')
  return {free = tonumber(free), held = tonumber(held), holds = tonumber(holds), earliest = tonumber(earliest), ranges = ranges}
end

local function write_state(state)
  if state.holds == 0 then state.earliest = 0 end
  return string.format('%d:%d:%d:%d:%s', state.free, state.held, state.holds, state.earliest, state.ranges)
end

local function is_integer_between(value, lowest, highest)
  return value ~= nil and value == math.floor(value) and value >= lowest and value <= highest
end
