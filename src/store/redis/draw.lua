-- Takes a token and a place for a look.
-- ARGV: eight of a draft, the highest token that was seen, the clock.
local seen = tonumber(ARGV[9])
local refusal = draw(1, clock(ARGV[10]), seen)
if refusal then
    return refusal
end
-- Counted, so that whoever drew notices when the server loses it.
return { 'booked', next_token(seen) }
