-- ARGV: id, record, standing of a new one, how many at the most.
local is_new = redis.call('HEXISTS', ENDPOINTS, ARGV[1]) == 0
if is_new and redis.call('HLEN', ENDPOINTS) >= tonumber(ARGV[4]) then
    return 0
end
redis.call('HSET', ENDPOINTS, ARGV[1], ARGV[2])
if is_new then
    redis.call('HSET', STANDINGS, ARGV[1], ARGV[3])
end
return 1
