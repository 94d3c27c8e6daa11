-- ARGV, for each request: device, jid, variant, when, due time where there is none.
for at = 1, #ARGV, 5 do
    local name, variant = known(ARGV[at], ARGV[at + 1]), tonumber(ARGV[at + 2])
    local subject = name and load(name)
    local held = subject and subject.held[variant]
    if held then
        held.requested = math.max(held.requested or -math.huge, tonumber(ARGV[at + 3]))
        save(name, subject)
        keep_idle(name, subject, variant)
        if not due_of(name, variant) then
            redis.call('ZADD', DUE, ARGV[at + 4], variant .. name)
        end
    end
end
