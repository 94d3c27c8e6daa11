-- ARGV: device, now, end of the lease, how many at the most, how many may become ready at once, the
-- replica.
local taken, number = {}, number_of(ARGV[1])
if not number then
    return taken
end
local WAIT, READY = base .. 'wait:' .. number, base .. 'ready:' .. number
for _, whom in ipairs(redis.call('ZRANGEBYSCORE', WAIT, '-inf', ARGV[2], 'LIMIT', 0, ARGV[5])) do
    local subject = load(in_lane(number, whom))
    redis.call('ZREM', WAIT, whom)
    if subject then
        redis.call('ZADD', READY, subject.rank, whom)
    end
end
local ready = redis.call('ZRANGEBYSCORE', READY, '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
for at = 1, #ready, 2 do
    local name = in_lane(number, ready[at])
    local subject = load(name)
    if subject then
        recheck_from(name, ARGV[3])
        take(ARGV[6], '-', name, tonumber(ARGV[2]), ARGV[3])
        local device, jid = whose(name)
        local pictures = {}
        for variant, held in pairs(subject.held) do
            pictures[#pictures + 1] = { variant, held.requested, held.record }
        end
        taken[#taken + 1] = { device, jid, subject.watch, pictures }
    else
        redis.call('ZREM', READY, ready[at])
    end
end
local greatest = tonumber(ready[#ready] or nil)
if greatest and greatest > tonumber(virtual_now(number)) then
    redis.call('HSET', VIRTUAL, number, exact(greatest))
end
return taken
