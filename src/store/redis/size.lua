-- ARGV: now.
local meta = redis.call('HMGET', META, 'entries', 'subjects')
local oldest, since = redis.call('XRANGE', LOG, '-', '+', 'COUNT', 1)[1], false
if oldest then
    local _, fields = record_of(oldest)
    since = tonumber(fields.at)
end
return {
    tonumber(meta[1]), tonumber(meta[2]), redis.call('ZCOUNT', DUE, '-inf', ARGV[1]), redis.call('ZCARD', WATCHES),
    redis.call('XLEN', LOG), since, tonumber(string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)')),
}
