-- What the scripts about flights begin with, behind `common`: the clock, and how a flight and an ending are kept.
--
-- Of flights and endings alone the server drops what is long over, by its own expiry; it decides nothing.

local LANDED = base .. 'landed'

-- Microseconds by the server's clock, or by the one that a test moves.
local function clock(given)
    if given ~= '' then
        return tonumber(given)
    end
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

local function millis_until(later, now)
    return math.ceil((later - now) / 1000)
end

-- A flight is a MessagePack array: name, from when, until when, the question that began it, whether another replica waits for it,
-- whose it is.
local function flight_key(device, jid, variant)
    return base .. 'f:' .. variant .. device .. '\0' .. jid
end

-- The flight at a key, if its lease has not run out. One from later is from before the clock was set back.
local function flight_at(key, now)
    local packed = redis.call('GET', key)
    local flight = packed and cmsgpack.unpack(packed)
    return flight and flight[2] <= now and now < flight[3] and flight or nil
end

local function keep_flight(key, flight)
    redis.call('SET', key, cmsgpack.pack(flight), 'PX', 2 * millis_until(flight[3], flight[2]))
end

-- Ends a flight, and tells those who wait for it by its name, which is nobody's.
local function land(key, flight)
    redis.call('DEL', key)
    if flight[5] then
        redis.call('XADD', LANDED, 'MAXLEN', '~', 1000, '*', 'flight', string.format('%.0f', flight[1]))
    end
end

-- Endings are a hash for each jid, by variant and device. One is a MessagePack array: from when, until when, the record.
local function endings_of(jid)
    return base .. 'e:' .. jid
end

local function ending_at(device, jid, variant)
    local packed = redis.call('HGET', endings_of(jid), variant .. device)
    return packed and cmsgpack.unpack(packed)
end
