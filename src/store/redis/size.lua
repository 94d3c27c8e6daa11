-- ARGV: now.
local meta = redis.call('HMGET', META, 'entries', 'subjects')
local oldest, since = redis.call('XRANGE', LOG, '-', '+', 'COUNT', 1)[1], false
if oldest then
    local _, fields = record_of(oldest)
    since = tonumber(fields.at)
end
local backlog = 0
for _, number in ipairs(redis.call('HKEYS', NAMES)) do
    backlog = backlog + redis.call('ZCOUNT', base .. 'due:' .. number, '-inf', ARGV[1])
end
return {
    tonumber(meta[1]), tonumber(meta[2]), backlog, redis.call('ZCARD', WATCHES),
    redis.call('XLEN', LOG), since, tonumber(string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)')),
}
