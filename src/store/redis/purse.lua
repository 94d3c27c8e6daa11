-- What the scripts about the budget begin with, behind `flights` and `presence`: how buckets, places, devices and reserves are kept.

local BUCKETS, RECORDS, VERSIONS = base .. 'buckets', base .. 'device_records', base .. 'device_versions'
local RESERVES, RESERVE_ENDS = base .. 'reserves', base .. 'reserve_ends'

-- For how long a share of the reserve is booked (us): a tenth longer than replicas use it.
local RESERVED = 66 * 60 * 1000000

-- How soon to ask again for a place (us): nobody is told when one is free.
local PLACE_PAUSE = 50000

local function whole(number)
    return string.format('%.0f', number)
end

-- What was kept under another mark may be from before a loss.
local function mark()
    local meta = redis.call('HMGET', META, 'epoch', 'losses')
    return meta[1] .. ' ' .. (meta[2] or '0')
end

-- What is known of a device: version, record or false, what is left of its cool-down (us).
local function known_of(device, now)
    local kept = redis.call('HGET', VERSIONS, device)
    local version, ends, length = string.match(kept or '', '^(%d+) (%d+) (%d+)$')
    -- A clock that was set back makes no cool-down longer than it was.
    local left = math.max(0, math.min(tonumber(ends or 0) - now, tonumber(length or 0)))
    return { tonumber(version or 0), redis.call('HGET', RECORDS, device), left }
end

local function bucket_of(lane, now)
    local packed = redis.call('HGET', BUCKETS, lane)
    local bucket = packed and cmsgpack.unpack(packed)
    if not bucket or bucket[3] ~= mark() then
        return { 0, now, mark() }, true
    end
    return bucket
end

local function keep_bucket(lane, bucket)
    redis.call('HSET', BUCKETS, lane, cmsgpack.pack(bucket))
end

-- Whether replicas may have shares of the reserve that nothing is known of here, because the store is new or has lost something;
-- and whether others may be granted beside those. They may after one loss: then buckets leave out two reserves. Two losses within
-- one such time are noticed where the server still knows of the first; one that was emptied twice does not.
local function unsettled(now)
    local ends, grants, of = string.match(redis.call('HGET', META, 'unsettled') or '', '^(%d+) (%d) (.*)$')
    if of ~= mark() then
        grants = ends and now < tonumber(ends) and '0' or '1'
        ends = now + RESERVED
        redis.call('HSET', META, 'unsettled', whole(ends) .. ' ' .. grants .. ' ' .. mark())
    end
    return now < tonumber(ends), grants == '1'
end

-- What a bucket gains of the rate that is asked for, nine tenths of all: what another reserve takes is left out too.
local function gain(rate, now)
    return unsettled(now) and rate * 8 / 9 or rate
end

-- What a bucket holds at most: each share of the reserve saves up one token besides.
local function room(burst, now)
    local half = math.floor(burst / 2)
    local known = redis.call('ZCOUNT', RESERVE_ENDS, '(' .. whole(now), '+inf')
    if unsettled(now) then
        return burst - half - math.min(math.floor(half / 2), known)
    end
    return burst - math.min(half, known)
end

-- Whether all places are taken, by replicas that are there.
local function taken(places, me, now, most)
    if redis.call('ZCARD', places) < most then
        return false
    end
    for _, place in ipairs(redis.call('ZRANGE', places, 0, -1)) do
        if is_absent(string.match(place, '^%d+'), me, now) then
            redis.call('ZREM', places, place)
        end
    end
    return redis.call('ZCARD', places) >= most
end

-- Takes a token and a place for a replica. The eight arguments from this one on: device, '1' and its name or '0' for the lane, the version or -1,
-- tokens per second, burst, concurrency, the place's name, its lease in ms. Says what is in the way, or nothing.
local function draw(at, now, me, seen)
    notice(seen)
    local lane, rate, place = ARGV[at + 1], gain(tonumber(ARGV[at + 3]) / 1000000, now), me .. ' ' .. ARGV[at + 6]
    local known = known_of(ARGV[at], now)
    if known[1] ~= tonumber(ARGV[at + 2]) then
        return { 'changed', known }
    elseif known[3] > 0 then
        return { 'later', known[3] }
    end
    local places, lease = base .. 'places:' .. lane, tonumber(ARGV[at + 7]) * 1000
    redis.call('ZREMRANGEBYSCORE', places, '-inf', whole(now))
    -- From before the clock was set back.
    redis.call('ZREMRANGEBYSCORE', places, '(' .. whole(now + 2 * lease), '+inf')
    if redis.call('ZSCORE', places, place) then
        return nil
    end
    local bucket, is_new = bucket_of(lane, now)
    if is_new then
        -- Who gave a place back may have done so in vain.
        redis.call('DEL', places)
    end
    bucket[1] = math.min(bucket[1] + math.max(0, now - bucket[2]) * rate, room(tonumber(ARGV[at + 4]), now))
    bucket[2] = now
    local refusal
    if bucket[1] < 1 - 1e-9 then
        refusal = { 'later', math.ceil((1 - bucket[1]) / rate) }
    elseif taken(places, me, now, tonumber(ARGV[at + 5])) then
        refusal = { 'later', PLACE_PAUSE }
    else
        bucket[1] = math.max(0, bucket[1] - 1)
        redis.call('ZADD', places, whole(now + lease), place)
        redis.call('PEXPIRE', places, whole(2 * lease / 1000))
    end
    keep_bucket(lane, bucket)
    return refusal
end
