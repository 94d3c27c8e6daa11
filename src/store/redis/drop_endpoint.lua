-- ARGV: id.
for _, sequence in ipairs(redis.call('HKEYS', base .. 'd:' .. ARGV[1])) do
    end_delivery(ARGV[1], sequence, delivery_of(ARGV[1], sequence)[2])
end
redis.call('HDEL', STANDINGS, ARGV[1])
redis.call('HDEL', LEASES, ARGV[1])
return redis.call('HDEL', ENDPOINTS, ARGV[1])
