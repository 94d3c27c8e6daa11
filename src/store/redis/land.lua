-- Ends a flight that did not end with a write.
-- ARGV: device, jid, variant, the flight's name, the ending or '', for how long it counts and for how long it is kept in ms, the clock.
local device, jid, variant = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = clock(ARGV[8])
local key = flight_key(device, jid, variant)
local flight = flight_at(key, now)
if flight and flight[1] == tonumber(ARGV[4]) then
    if ARGV[5] ~= '' then
        redis.call('HSET', endings_of(jid), variant .. device, cmsgpack.pack({ now, now + tonumber(ARGV[6]) * 1000, ARGV[5] }))
        redis.call('PEXPIRE', endings_of(jid), ARGV[7])
    end
    land(key, flight)
end
