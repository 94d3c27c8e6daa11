-- ARGV: endpoint, behind which sequence, due time.
local id = ARGV[1]
local revived = redis.call('ZRANGEBYSCORE', base .. 'dead:' .. id, '(' .. ARGV[2], '+inf')
for _, sequence in ipairs(revived) do
    local delivery = delivery_of(id, sequence)
    delivery[3], delivery[4], delivery[5] = 0, false, tonumber(ARGV[3])
    redis.call('HSET', base .. 'd:' .. id, sequence, cmsgpack.pack(delivery))
    redis.call('ZREM', base .. 'dead:' .. id, sequence)
    redis.call('ZADD', base .. 'waiting:' .. id, sequence, sequence)
end
return #revived
