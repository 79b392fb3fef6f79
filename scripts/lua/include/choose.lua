-- The quota that rules at a moment: the latest start among the active ones, as PostgreSQL decides it too.
local function choose(definitions, now, skew)
  local active, is_near = nil, false
  for quota, from, till, limit, usable in string.gmatch(definitions, '(%d+):(%-?%d+):(%-?%d*):(%d*):(%d+)') do
    local start, stop = tonumber(from), tonumber(till)
    if math.abs(now - start) < skew or (stop and math.abs(now - stop) < skew) then is_near = true end
    if not active and start <= now and (not stop or now < stop) then
      active = {quota = quota, limit = limit, usable = tonumber(usable)}
    end
  end
  return active, is_near
end

-- Slots that may be handed out. What comes back after a limit was lowered is free again, and may be more than the
-- new limit leaves.
local function available(active, state)
  if active.limit == '' then return state.free end
  return math.min(state.free, tonumber(active.limit) - (active.usable - state.free))
end

-- Why too few can be had: FULL only where none is held and no boundary is near.
local function refusal(state, now, is_near)
  if state.holds > 0 then
    if now >= state.earliest * 1000 then return 'EXPIRED' end
    return 'BUSY'
  end
  if is_near then return 'BOUNDARY' end
  return 'FULL'
end
