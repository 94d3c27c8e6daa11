-- Begins a store where there is none, and comes to terms with one that is not as it was left.
-- ARGV: the format that this program knows; an epoch and the tokens' beginning for a log that is begun; the log as this program
-- has seen it: the last event id, the epoch, the last sequence, empty and 0 if it has seen none.
local META = KEYS[1]
local LOG = string.sub(META, 1, -5) .. 'log'

local function event_at(sequence)
    local place = string.format('%.0f-0', sequence)
    local entry = redis.call('XRANGE', LOG, place, place)[1]
    for at = 1, entry and #entry[2] or 0, 2 do
        if entry[2][at] == 'event_id' then
            return entry[2][at + 1]
        end
    end
    return ''
end

local kind = redis.call('TYPE', META).ok
if kind ~= 'none' and (kind ~= 'hash' or redis.call('HEXISTS', META, 'format') == 0) then
    return { 'foreign' }
end
local format = tonumber(redis.call('HGET', META, 'format') or ARGV[1])
if format ~= tonumber(ARGV[1]) then
    return { 'other', format }
end
if redis.call('HEXISTS', META, 'migration') == 1 then
    return { 'unfinished' }
end
local seen_event, seen_epoch, seen_last = ARGV[4], ARGV[5], tonumber(ARGV[6])
local begun = 0
if kind == 'none' then
    begun = 1
    -- No place is given twice that anybody may stand at, not even in another epoch: readers wait for places beyond their own.
    local beyond = seen_last > 0 and seen_last + 1 or 0
    redis.call('HSET', META, 'format', ARGV[1], 'epoch', ARGV[2], 'tokens', ARGV[3], 'entries', 0, 'subjects', 0,
        'trimmed', beyond, 'last', beyond, 'devices', 0, 'forgotten', 0)
elseif seen_last > 0 then
    local meta = redis.call('HMGET', META, 'epoch', 'last', 'tokens')
    local last, is_same = tonumber(meta[2]), meta[1] == seen_epoch
    -- Another event in its place: the server lost what was there, and another replica was faster to go on.
    local found = event_at(seen_last)
    local is_lost = last < seen_last or seen_event ~= '' and found ~= '' and found ~= seen_event
    if is_same and is_lost or not is_same and last <= seen_last then
        redis.call('HSET', META, 'last', math.max(last, seen_last) + 1)
    end
    if is_same and is_lost then
        begun = 2
        -- Up to the last beat that is left nothing was lost, and nothing beyond it was told where there are replicas.
        local beat = redis.call('GET', string.sub(META, 1, -5) .. 'beat') or ''
        if string.match(beat, '^%x+') == meta[1] then
            redis.call('HSET', META, 'former', beat)
        else
            redis.call('HDEL', META, 'former')
        end
        redis.call('HSET', META, 'epoch', ARGV[2], 'tokens', math.max(tonumber(meta[3]), tonumber(ARGV[3])))
    end
end
local meta = redis.call('HMGET', META, 'epoch', 'last')
local last = tonumber(meta[2])
return { 'open', meta[1], last, event_at(last), begun }
