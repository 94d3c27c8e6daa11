-- ARGV: before when, how many at the most.
local gone = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', IDLE, '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])) do
    local variant, name = tonumber(string.sub(member, 1, 1)), string.sub(member, 2)
    local subject = load(name)
    unschedule(name, variant)
    if subject then
        if subject.held[variant] and subject.held[variant].record then
            count('entries', -1)
        end
        subject.held[variant] = nil
        if next(subject.held) or subject.watch then
            save(name, subject)
        else
            redis.call('DEL', base .. 's:' .. name)
            count('subjects', -1)
            local device, jid = whose(name)
            gone[#gone + 1] = { device, jid }
        end
    end
end
return gone
