-- ARGV: device, jid, variant, the highest token that was seen.
local token = next_token(tonumber(ARGV[4]))
local name = known(ARGV[1], ARGV[2])
return { token, told(name, name and load(name), tonumber(ARGV[3])) }
