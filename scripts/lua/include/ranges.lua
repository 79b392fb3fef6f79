-- Ranges of slots: text 'lo-hi,lo-hi' on the wire and in the hash, {{lo, hi}, ...} here; both ends included, ascending, disjoint.
local LAST_SLOT = 4503599627370495  -- 2^52 - 1: where unlimited ends, the same in the ledger

local function parse(text)
  local ranges = {}
  for lo, hi in string.gmatch(text, '(%d+)-(%d+)') do
    ranges[#ranges + 1] = {tonumber(lo), tonumber(hi)}
  end
  return ranges
end

local function format(ranges)
  local parts = {}
  for i, range in ipairs(ranges) do
    parts[i] = string.format('%d-%d', range[1], range[2])
  end
  return table.concat(parts, ',')
end

local function size(ranges)
  local total = 0
  for _, range in ipairs(ranges) do
    total = total + range[2] - range[1] + 1
  end
  return total
end

-- Sorts, and joins what overlaps or touches.
local function union(ranges)
  table.sort(ranges, function(a, b) return a[1] < b[1] end)
  local out = {}
  for _, range in ipairs(ranges) do
    local last = out[#out]
    if last and range[1] <= last[2] + 1 then
      last[2] = math.max(last[2], range[2])
    else
      out[#out + 1] = {range[1], range[2]}
    end
  end
  return out
end

-- The first of the disjoint ascending ranges that ends at or after a slot.
local function first_reaching(ranges, slot)
  local lo, hi = 1, #ranges + 1
  while lo < hi do
    local mid = math.floor((lo + hi) / 2)
    if ranges[mid][2] < slot then lo = mid + 1 else hi = mid end
  end
  return lo
end

local function subtract(ranges, taken)
  local out = {}
  for _, range in ipairs(ranges) do
    local lo, hi = range[1], range[2]
    local i = first_reaching(taken, lo)
    while lo <= hi do
      local cut = taken[i]
      if not cut or cut[1] > hi then
        out[#out + 1] = {lo, hi}
        break
      end
      if cut[1] > lo then out[#out + 1] = {lo, cut[1] - 1} end
      lo = cut[2] + 1
      i = i + 1
    end
  end
  return out
end
