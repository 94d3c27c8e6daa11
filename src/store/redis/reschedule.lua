-- ARGV, for each key: device, jid, variant, due time or ''.
for at = 1, #ARGV, 4 do
    local name, variant = known(ARGV[at], ARGV[at + 1]), tonumber(ARGV[at + 2])
    local subject = name and load(name)
    if subject and subject.held[variant] then
        schedule(name, subject, variant, tonumber(ARGV[at + 3]))
    end
end
