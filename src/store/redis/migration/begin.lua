-- Begins a store that is filled from another engine, or finds how far that has come. Until `finish` it has no epoch, so that no other
-- script takes it for a store.
-- ARGV: the format that this program knows; the mark; what differs when the source was used since; where everything begins; the
-- tokens' beginning; the log's trimmed and last sequence; lessons or ''.
local META = KEYS[1]
local base = string.sub(META, 1, -5)
local kind = redis.call('TYPE', META).ok
if kind == 'none' then
    for _, key in ipairs({ 'devices', 'names', 'log', 'idle', 'watches', 'virtual', 'device_records', 'endpoints', 'standings' }) do
        if redis.call('EXISTS', base .. key) == 1 then
            return { 'remains', base .. key }
        end
    end
    redis.call('HSET', META, 'format', ARGV[1], 'migration', ARGV[2], 'source', ARGV[3], 'place', ARGV[4], 'rows', 0,
        'tokens', ARGV[5], 'trimmed', ARGV[6], 'upto', ARGV[7], 'last', 0, 'entries', 0, 'subjects', 0, 'devices', 0, 'forgotten', 0)
    if ARGV[8] ~= '' then
        redis.call('HSET', META, 'lessons', ARGV[8])
    end
elseif kind ~= 'hash' or redis.call('HEXISTS', META, 'format') == 0 then
    return { 'foreign' }
end
local format = tonumber(redis.call('HGET', META, 'format'))
if format ~= tonumber(ARGV[1]) then
    return { 'other', format }
end
local meta = redis.call('HMGET', META, 'migration', 'source', 'place', 'rows', 'epoch')
if not meta[1] then
    return { 'store', meta[5] }
elseif meta[1] ~= ARGV[2] then
    return { 'another' }
elseif meta[2] ~= ARGV[3] then
    return { 'used' }
end
return { 'begun', meta[3], tonumber(meta[4]) }
