-- ARGV: endpoint, behind which sequence, due time.
local id = ARGV[1]
local revived = redis.call('ZRANGEBYSCORE', base .. 'dead:' .. id, '(' .. ARGV[2], '+inf')
for _, sequence in ipairs(revived) do
    local delivery = delivery_of(id, sequence)
    delivery[3], delivery[4], delivery[5] = 0, false, tonumber(ARGV[3])
    redis.call('HSET', base .. 'd:' .. id, sequence, cmsgpack.pack(delivery))
    wait_again(id, sequence)
end
return #revived
