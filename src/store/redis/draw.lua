-- Takes a token and a place for a look.
-- ARGV: eight of a draft, the replica, the highest token that was seen, the clock.
local seen = tonumber(ARGV[10])
local refusal = draw(1, clock(ARGV[11]), ARGV[9], seen)
if refusal then
    return refusal
end
-- Counted, so that whoever drew notices when the server loses it.
return { 'booked', next_token(seen) }
