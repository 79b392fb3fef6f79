-- absorb: bring the hash of a subject in line with the ledger; live holds stay.
-- The caller read the hash first, then definitions, version and ledger in one snapshot. For every quota
-- free := (free, or everything where the hash has none) + given back + expired - taken - held.
-- KEYS
--   subject_key   hash of the subject
--   changed_key   set of the shard's subjects that sync has to look at
-- ARGV
--   subject       member for changed_key
--   version       of the definitions; below the hash's version nothing is applied, for voids can be undone
--   token_seen    of the hash that was read, '' for none; where another absorb was applied since, nothing is,
--                   for what the reader saw as free, held or given back is no longer so
--   token         new for every call
--   quota_count   quotas that follow
--   values...     seven each, latest start first: quota, start, end, limit, usable, taken, given_back
--                   taken = every range of the ledger, void ones too; given_back = ranges that the hash read had
--                   neither free nor held, and the ledger has not
--                 then two for each hold that had expired when the hash was read: its id and its value
-- Returns
--   1 where it was applied, 0 where the hash is of a later version or another absorb came between
local subject_key, changed_key = KEYS[1], KEYS[2]
local subject, version, token_seen, token, quota_count, values = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV
-- include: ranges
-- include: state

local hash, all = {}, redis.call('HGETALL', subject_key)
for i = 1, #all, 2 do hash[all[i]] = all[i + 1] end
local last_definition = 5 + 7 * quota_count
if (hash.a or '') ~= token_seen then return 0 end
if hash.d and tonumber(string.match(hash.d, '^(%d+)|')) > version then return 0 end

local quotas, order = {}, {}
for i = 6, last_definition, 7 do
  local quota = values[i]
  order[#order + 1] = quota
  quotas[quota] = {
    definition = table.concat({quota, values[i + 1], values[i + 2], values[i + 3], values[i + 4]}, ':'),
    taken = parse(values[i + 5]), back = parse(values[i + 6]), held = {}, holds = 0, earliest = 0,
  }
end

local set, drop = {}, {}
for i = last_definition + 1, #values, 2 do
  local field, seen = 'h' .. values[i], values[i + 1]
  if hash[field] == seen then
    local quota, ranges = string.match(seen, '^(%d+):%d+:(.*)$')
    if quotas[quota] then
      for _, range in ipairs(parse(ranges)) do table.insert(quotas[quota].back, range) end
    end
    hash[field] = nil
    drop[#drop + 1] = field
  end
end

-- A hold keeps what the ledger leaves it: slots that are taken by now are used or void, and never come back through it.
for field, value in pairs(hash) do
  local id, expires, ranges = string.match(value, '^(%d+):(%d+):(.*)$')
  if string.sub(field, 1, 1) == 'h' then
    local quota = quotas[id]
    local left = quota and subtract(parse(ranges), quota.taken) or {}
    if #left == 0 then
      drop[#drop + 1] = field
    else
      for _, range in ipairs(left) do table.insert(quota.held, range) end
      quota.holds = quota.holds + 1
      quota.earliest = quota.holds == 1 and tonumber(expires) or math.min(quota.earliest, tonumber(expires))
      set[#set + 1] = field
      set[#set + 1] = id .. ':' .. expires .. ':' .. format(left)
    end
  elseif string.sub(field, 1, 1) == 'q' and not quotas[string.sub(field, 2)] then
    drop[#drop + 1] = field
  end
end

local definitions = {}
for i, id in ipairs(order) do
  local quota, text = quotas[id], hash.d and hash['q' .. id]
  local known = text and read_state(text).ranges
  local free = known and parse(known) or {{1, LAST_SLOT}}
  for _, range in ipairs(quota.back) do free[#free + 1] = range end
  local held = union(quota.held)
  free = subtract(subtract(union(free), quota.taken), held)
  set[#set + 1] = 'q' .. id
  set[#set + 1] = write_state({
    free = size(free), held = size(held), holds = quota.holds, earliest = quota.earliest, ranges = format(free),
  })
  definitions[i] = quota.definition
end

for _, field in ipairs(drop) do redis.call('HDEL', subject_key, field) end
redis.call('HSET', subject_key, 'a', token, 'd', string.format('%d|%s', version, table.concat(definitions, ';')))
for i = 1, #set, 2 do redis.call('HSET', subject_key, set[i], set[i + 1]) end
redis.call('SADD', changed_key, subject)
return 1
