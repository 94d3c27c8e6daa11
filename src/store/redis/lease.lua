-- ARGV: holder, the highest token that was seen, and for each endpoint: id, wish, and of the lease to inherit its token and beat.
local me, leases = ARGV[1], {}
for at = 3, #ARGV, 4 do
    local id, wish = ARGV[at], ARGV[at + 1]
    local token, beat, holder = lease_of(id)
    if redis.call('HEXISTS', ENDPOINTS, id) == 0 or wish == 'give up' and holder == me then
        redis.call('HDEL', LEASES, id)
        holder = nil
    elseif wish ~= 'give up' then
        local stands_still = wish == 'inherit' and token == tonumber(ARGV[at + 2]) and beat == tonumber(ARGV[at + 3])
        if holder == me then
            beat = beat + 1
        elseif not holder or wish == 'seize' or stands_still then
            token, beat, holder = next_token(tonumber(ARGV[2])), 0, me
        end
        redis.call('HSET', LEASES, id, string.format('%.0f %.0f %s', token, beat, holder))
    end
    leases[#leases + 1] = holder and { holder, token, beat } or {}
end
return leases
