-- ARGV: device, up to when, end of the lease, how many at the most, the replica.
local lease, taken = tonumber(ARGV[3]), {}
local number = number_of(ARGV[1])
if not number then
    return taken
end
local due = redis.call('ZRANGEBYSCORE', base .. 'due:' .. number, '-inf', ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[4])
for at = 1, #due, 2 do
    local variant, name = tonumber(string.sub(due[at], 1, 1)), in_lane(number, string.sub(due[at], 2))
    local subject = load(name)
    local held = subject and subject.held[variant]
    if held then
        schedule(name, subject, variant, lease)
        take(ARGV[5], variant, name, tonumber(due[at + 1]), lease)
        local device, jid = whose(name)
        taken[#taken + 1] =
            { device, jid, variant, tonumber(due[at + 1]), held.requested, subject.watch, held.record }
    else
        unschedule(name, variant)
    end
end
return taken
