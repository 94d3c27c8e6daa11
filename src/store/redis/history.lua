-- ARGV: jid, before which sequence, how many at the most, and the device unless all are meant.
local places, entries = {}, {}
for _, name in ipairs(names_of(ARGV[1], { ARGV[4] })) do
    local key = base .. 'h:' .. name
    local records = redis.call('ZREVRANGEBYSCORE', key, '(' .. ARGV[2], '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
    for at = 2, #records, 2 do
        places[#places + 1] = tonumber(records[at])
    end
end
table.sort(places, function(a, b) return a > b end)
for at = 1, math.min(#places, tonumber(ARGV[3])) do
    entries[#entries + 1] = redis.call('XRANGE', LOG, place(places[at]), place(places[at]))[1]
end
local epoch, trimmed, last, former = extent()
return { epoch, trimmed, last, former, entries, replicas() }
