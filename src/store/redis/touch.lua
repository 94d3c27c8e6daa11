-- ARGV, for each request: device, jid, variant, when, deadline where there is none or '', from when on to be rechecked where it
-- is not.
for at = 1, #ARGV, 6 do
    local name, variant = known(ARGV[at], ARGV[at + 1]), tonumber(ARGV[at + 2])
    local subject = name and load(name)
    local held = subject and subject.held[variant]
    if held then
        held.requested = math.max(held.requested or -math.huge, tonumber(ARGV[at + 3]))
        save(name, subject)
        keep_idle(name, subject, variant)
        if ARGV[at + 4] ~= '' then
            local deadlines, key = due_lane(name, variant)
            redis.call('ZADD', deadlines, 'NX', ARGV[at + 4], key)
        end
        if not is_rechecked(name) then
            recheck_from(name, ARGV[at + 5])
        end
    end
end
