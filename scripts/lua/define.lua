-- define: make these the subject's quotas, where no ledger stands behind the counter; counts of quotas that stay are kept.
-- KEYS
--   subject_key   hash of the subject
--   changed_key   set of the shard's subjects that sync has to look at
-- ARGV
--   subject       member for changed_key
--   quotas...     four values each, latest start first: quota, start, end, limit (microseconds; empty = no end, unlimited)
-- Returns
--   the new version of the definitions
local subject_key, changed_key = KEYS[1], KEYS[2]
local subject, quotas = ARGV[1], ARGV
-- include: ranges
-- include: state

local hash, all = {}, redis.call('HGETALL', subject_key)
for i = 1, #all, 2 do hash[all[i]] = all[i + 1] end
local document = hash.d or '0|'
local version = tonumber(string.match(document, '^(%d+)|')) + 1

-- The slots of a quota that some hold keeps: what a raised limit adds must lie above them.
local function highest_held(quota)
  local highest = 0
  for field, value in pairs(hash) do
    local owner, ranges = string.match(value, '^(%d+):%d+:(.*)$')
    if string.sub(field, 1, 1) == 'h' and owner == quota then
      local held = parse(ranges)
      highest = math.max(highest, held[#held][2])
    end
  end
  return highest
end

local function lowest(ranges, amount)
  local out = {}
  for _, range in ipairs(ranges) do
    if amount <= 0 then break end
    out[#out + 1] = {range[1], math.min(range[2], range[1] + amount - 1)}
    amount = amount - (range[2] - range[1] + 1)
  end
  return out
end

local definitions, keep, set = {}, {d = true}, {}
for i = 2, #quotas, 4 do
  local quota, start, stop, limit = quotas[i], quotas[i + 1], quotas[i + 2], quotas[i + 3]
  local field = 'q' .. quota
  local most = limit == '' and LAST_SLOT or tonumber(limit)
  local state, used = {free = 0, held = 0, holds = 0, earliest = 0, ranges = ''}, 0
  if hash[field] then
    state = read_state(hash[field])
    local was, usable = string.match(';' .. string.match(document, '|(.*)$'), ';' .. quota .. ':[^:]+:[^:]*:(%d*):([^;]*)')
    usable = usable == '' and LAST_SLOT or tonumber(usable == '=' and was or usable)
    used = usable - state.free - state.held
  end
  local room, free = math.max(0, most - used - state.held), parse(state.ranges)
  if room > state.free then
    local above = math.max(highest_held(quota), #free > 0 and free[#free][2] or 0)
    free[#free + 1] = {above + 1, above + room - state.free}
  end
  free = lowest(union(free), room)
  state.free, state.ranges = size(free), format(free)
  keep[field] = true
  set[#set + 1] = field
  set[#set + 1] = write_state(state)
  local usable = used + state.free + state.held
  usable = usable == LAST_SLOT and '' or usable == most and '=' or string.format('%d', usable)
  definitions[#definitions + 1] = table.concat({quota, start, stop, limit, usable}, ':')
end

for field, value in pairs(hash) do
  local owner = string.sub(field, 1, 1) == 'h' and 'q' .. string.match(value, '^(%d+):') or field
  if not keep[owner] then redis.call('HDEL', subject_key, field) end
end
redis.call('HSET', subject_key, 'd', string.format('%d|%s', version, table.concat(definitions, ';')), unpack(set))
redis.call('SADD', changed_key, subject)
return version
