-- ARGV: device, jid, variant.
local name = known(ARGV[1], ARGV[2])
return told(name, name and load(name), tonumber(ARGV[3]))
