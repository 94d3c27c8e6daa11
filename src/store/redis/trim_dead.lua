-- ARGV: before when, how many at the most.
local endpoints, seen = {}, {}
for _, delivery in ipairs(redis.call('ZRANGEBYSCORE', DEAD_AGES, '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])) do
    local sequence, endpoint = string.match(delivery, '^(%d+) (.*)$')
    end_delivery(endpoint, sequence, delivery_of(endpoint, sequence)[2])
    if not seen[endpoint] then
        seen[endpoint] = true
        endpoints[#endpoints + 1] = endpoint
    end
end
return endpoints
