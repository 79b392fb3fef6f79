-- The quota that rules now: the latest start among the active ones, as PostgreSQL decides it too; definitions stand latest
-- start first. Reads document. Makes now, and quota, limit and usable of the one that rules, or nil;
-- changes: microseconds until another one rules, or none, or nil where that is not known to come.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local quota, limit, usable, changes
for id, from, till, most, slots in string.gmatch(document, '(%d+):([^:]+):([^:]*):([^:]*):([^;]*)') do
  if now < from + 0 then
    changes = from - now
  elseif till == '' or now < till + 0 then
    quota, limit = id, most
    usable = slots == '' and 4503599627370495 or slots == '=' and most + 0 or slots + 0
    if till ~= '' and (not changes or till - now < changes) then changes = till - now end
    break
  end
end
changes = changes and math.floor(changes / 1000) or ''
