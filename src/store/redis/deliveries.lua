-- ARGV: endpoint, 'dead' or 'waiting', behind which sequence, how many at the most.
local deliveries = {}
local list = base .. ARGV[2] .. ':' .. ARGV[1]
for _, sequence in ipairs(redis.call('ZRANGEBYSCORE', list, '(' .. ARGV[3], '+inf', 'LIMIT', 0, ARGV[4])) do
    local event_id, name, attempts, first_at, due_at, json, noticed_at = unpack(delivery_of(ARGV[1], sequence))
    local device, jid = false, false
    if name then
        device, jid = whose(name)
    end
    deliveries[#deliveries + 1] =
        { tonumber(sequence), event_id, device, jid, attempts, first_at, due_at, json, noticed_at }
end
return deliveries
