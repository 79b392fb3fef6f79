-- Why too few can be had: FULL only where none is held and no boundary is nearer than skew_us. Reads document, now, skew_us,
-- holds, earliest. Makes refusal.
local refusal = 'FULL'
if holds > 0 then
  refusal = now < earliest * 1000 and 'BUSY' or 'EXPIRED'
else
  for from, till in string.gmatch(document, '%d+:([^:]+):([^:]*):[^:]*:[^;]*') do
    if math.abs(now - from) < skew_us or (till ~= '' and math.abs(now - till) < skew_us) then refusal = 'BOUNDARY' end
  end
end
