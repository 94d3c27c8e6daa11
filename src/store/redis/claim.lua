-- ARGV: device, jid, variant.
local token = redis.call('HINCRBY', META, 'tokens', 1)
local name = known(ARGV[1], ARGV[2])
return { token, told(name and load(name), tonumber(ARGV[3])) }
