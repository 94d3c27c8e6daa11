-- What is so of a key; starts a look if it is to and nothing else suffices.
-- ARGV: device, jid, variant; at what instant an entry must be alive; behind which and up to which instant it must have been
-- looked at, or '' twice; the lease of a look in ms, or '' if none is to start; the question's own name; the replica; the highest
-- token that was seen; the clock; and, if the look draws from the budget, eight of its draft.
local device, jid, variant = ARGV[1], ARGV[2], tonumber(ARGV[3])
local after, upto = tonumber(ARGV[5]), tonumber(ARGV[6])
local name = known(device, jid)
local subject = name and load(name)
local held = subject and subject.held[variant]
if held and held.record and held.dead_at > tonumber(ARGV[4])
    and not (after and (held.checked_at <= after or held.checked_at > upto)) then
    return { 'held', told(name, subject, variant) }
end

local now = clock(ARGV[11])
local ending = ending_at(device, jid, variant)
if ending and ending[1] <= now and now < ending[2] then
    return { 'failed', ending[3], millis_until(ending[2], now) }
end

local key = flight_key(device, jid, variant)
local flight = flight_at(key, now)
if flight and is_absent(flight[6], ARGV[9], now) then
    flight = nil
end
-- A question that is sent twice meets its own flight.
if flight and flight[4] ~= ARGV[8] then
    if not flight[5] then
        flight[5] = true
        keep_flight(key, flight)
    end
    return { 'under way', flight[1], millis_until(flight[3], now) }
end
if ARGV[7] == '' then
    return { 'held', told(name, subject, variant) }
end
if not flight then
    local refusal = ARGV[12] and draw(12, now, ARGV[9], tonumber(ARGV[10]))
    if refusal then
        return { 'not yet', refusal }
    end
    flight = { next_token(tonumber(ARGV[10])), now, now + tonumber(ARGV[7]) * 1000, ARGV[8], false, ARGV[9] }
    keep_flight(key, flight)
end
return { 'started', flight[1], ending and ending[3] or false, told(name, subject, variant) }
