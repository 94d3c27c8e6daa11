-- Begins a store where there is none, and tells what is there.
-- ARGV: the format that this program knows, an epoch and the tokens' beginning for a new store.
local META = KEYS[1]
local kind = redis.call('TYPE', META).ok
if kind ~= 'none' and (kind ~= 'hash' or redis.call('HEXISTS', META, 'format') == 0) then
    return { 'foreign' }
end
local format = tonumber(redis.call('HGET', META, 'format') or ARGV[1])
if format > tonumber(ARGV[1]) then
    return { 'newer', format }
end
if kind == 'none' then
    redis.call('HSET', META, 'format', ARGV[1], 'epoch', ARGV[2], 'tokens', ARGV[3], 'entries', 0, 'subjects', 0,
        'trimmed', 0, 'last', 0, 'devices', 0, 'forgotten', 0)
end
return { 'open', tonumber(redis.call('HGET', META, 'last')), kind == 'none' and 1 or 0 }
