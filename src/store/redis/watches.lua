-- ARGV: from where, up to where, how many at the most.
local watches = {}
for _, member in ipairs(redis.call('ZRANGEBYLEX', WATCHES, ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])) do
    local device, jid = string.match(member, '^(.*)%z([^%z]*)$')
    local name = known(device, jid)
    local subject = name and load(name)
    watches[#watches + 1] = { device, jid, subject and subject.watch or false }
end
return watches
