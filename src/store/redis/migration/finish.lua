-- Makes a store of what was filled; sent twice, it finds one.
-- ARGV: the place behind everything, the epoch.
local meta = redis.call('HMGET', META, 'place', 'epoch', 'upto')
if meta[2] then
    return meta[2] == ARGV[2] and 1 or 0
elseif meta[1] ~= ARGV[1] then
    return 0
end
redis.call('HSET', META, 'epoch', ARGV[2], 'last', meta[3])
redis.call('HDEL', META, 'migration', 'source', 'place', 'rows', 'upto')
return 1
