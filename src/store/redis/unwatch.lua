-- ARGV: jid, and the device unless all are meant.
local ended = 0
for _, name in ipairs(names_of(ARGV[1], { ARGV[2] })) do
    local subject = load(name)
    if subject and subject.watch then
        ended = ended + 1
        subject.watch = false
        save(name, subject)
        redis.call('ZREM', WATCHES, whose(name) .. '\0' .. ARGV[1])
        for variant in pairs(subject.held) do
            keep_idle(name, subject, variant, due_of(name, variant))
        end
        if not next(subject.held) then
            -- Never looked at: it has nothing to stay for.
            drop(name)
        end
    end
end
return ended
