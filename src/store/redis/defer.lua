-- ARGV, for each subject: device, jid, from when on it may be rechecked or ''.
for at = 1, #ARGV, 3 do
    local name = known(ARGV[at], ARGV[at + 1])
    if name and redis.call('EXISTS', base .. name) == 1 then
        recheck_from(name, tonumber(ARGV[at + 2]))
    end
end
