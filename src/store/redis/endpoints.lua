local known = {}
for _, id in ipairs(redis.call('HKEYS', ENDPOINTS)) do
    known[#known + 1] = {
        id, redis.call('HGET', ENDPOINTS, id), redis.call('HGET', STANDINGS, id),
        redis.call('ZCARD', base .. 'waiting:' .. id), redis.call('ZCARD', base .. 'dead:' .. id),
    }
end
return known
