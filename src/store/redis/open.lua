-- Begins a store where there is none, and comes to terms with one that is not as it was left.
-- ARGV: the format that this program knows; an epoch and the tokens' beginning for a log that is begun; the epoch and the end of
-- the log as this program has seen them, empty and 0 if it has seen none.
local META = KEYS[1]
local kind = redis.call('TYPE', META).ok
if kind ~= 'none' and (kind ~= 'hash' or redis.call('HEXISTS', META, 'format') == 0) then
    return { 'foreign' }
end
local format = tonumber(redis.call('HGET', META, 'format') or ARGV[1])
if format > tonumber(ARGV[1]) then
    return { 'newer', format }
end
local seen_epoch, seen_last = ARGV[4], tonumber(ARGV[5])
-- No place is given twice that anybody may stand at, not even in another epoch: readers wait for places beyond their own.
local beyond = seen_last > 0 and seen_last + 1 or 0
local begun = 0
if kind == 'none' then
    begun = 1
    redis.call('HSET', META, 'format', ARGV[1], 'epoch', ARGV[2], 'tokens', ARGV[3], 'entries', 0, 'subjects', 0,
        'trimmed', beyond, 'last', beyond, 'devices', 0, 'forgotten', 0)
else
    local meta = redis.call('HMGET', META, 'epoch', 'last', 'tokens')
    if tonumber(meta[2]) < seen_last then
        redis.call('HSET', META, 'last', beyond)
        if meta[1] == seen_epoch then
            begun = 2
            redis.call('HSET', META, 'epoch', ARGV[2], 'tokens', math.max(tonumber(meta[3]), tonumber(ARGV[3])))
        end
    end
end
local meta = redis.call('HMGET', META, 'epoch', 'last')
return { 'open', meta[1], tonumber(meta[2]), begun }
