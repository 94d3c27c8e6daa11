-- ARGV: now, end of the lease, how many at the most, and the time up to which it need not be remembered who was forgotten.
local lease, taken = ARGV[2], {}
for _, whom in ipairs(redis.call('ZRANGEBYSCORE', FORGOTTEN_AT, '-inf', ARGV[4], 'LIMIT', 0, 100)) do
    -- Whatever began before is turned away from now on, whoever it is about: no clock has to be right.
    local floor = math.max(tonumber(redis.call('HGET', META, 'forgotten')), tonumber(redis.call('HGET', FORGOTTEN, whom)))
    redis.call('HSET', META, 'forgotten', floor)
    redis.call('HDEL', FORGOTTEN, whom)
    redis.call('ZREM', FORGOTTEN_AT, whom)
end
local due = redis.call('ZRANGEBYSCORE', DUE, '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for at = 1, #due, 2 do
    local variant, name = tonumber(string.sub(due[at], 1, 1)), string.sub(due[at], 2)
    local subject = load(name)
    local held = subject and subject.held[variant]
    if held then
        schedule(name, subject, variant, lease)
        local device, jid = whose(name)
        taken[#taken + 1] =
            { device, jid, variant, tonumber(due[at + 1]), held.requested, subject.watch, held.record }
    else
        unschedule(name, variant)
    end
end
return { tonumber(redis.call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2] or nil) or false, taken }
