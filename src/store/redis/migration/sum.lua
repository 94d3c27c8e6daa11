-- How much there is, and what there is one of.
local meta = redis.call('HMGET', META, 'migration', 'trimmed', 'upto', 'lessons', 'subjects', 'entries')
local deliveries = 0
for _, id in ipairs(redis.call('HKEYS', ENDPOINTS)) do
    deliveries = deliveries + redis.call('ZCARD', base .. 'waiting:' .. id) + redis.call('ZCARD', base .. 'dead:' .. id)
end
return {
    meta[1], tonumber(meta[2]), tonumber(meta[3]), meta[4], redis.call('HLEN', base .. 'device_records'), tonumber(meta[5]),
    tonumber(meta[6]), redis.call('ZCARD', WATCHES), redis.call('XLEN', LOG), redis.call('HLEN', ENDPOINTS), deliveries,
}
