-- The state as text again. Reads what free makes; makes state.
state = string.format('%d:%d:%d:%d:', free, held, holds, earliest)
if lo ~= '' then state = state .. string.format('%d-%d', lo, hi) .. (tail == '' and '' or ',' .. tail) end
