-- The state as text again. Reads what free makes; makes state.
if lo == '' then
  state = string.format('%d:%d:%d:%d:', free, held, holds, earliest)
else
  state = string.format('%d:%d:%d:%d:%d-%s%s', free, held, holds, earliest, lo, hi, tail == '' and '' or ',' .. tail)
end
