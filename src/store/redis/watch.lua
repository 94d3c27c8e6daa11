-- ARGV: device, jid, interval, due time, how many at the most, the state of somebody unknown.
local name = known(ARGV[1], ARGV[2])
local subject = name and load(name)
if not (subject and subject.watch) and redis.call('ZCARD', WATCHES) >= tonumber(ARGV[5]) then
    return 0
end
name = name or name_of(number_of(ARGV[1], true), ARGV[2])
if not subject then
    subject = { revision = 0, state = ARGV[6], held = {} }
    count('subjects', 1)
end
for variant in pairs(subject.held) do
    redis.call('ZREM', IDLE, variant .. name)
end
subject.watch = tonumber(ARGV[3])
redis.call('ZADD', WATCHES, 0, ARGV[1] .. '\0' .. ARGV[2])
due_by(name, subject, 0, tonumber(ARGV[4]))
save(name, subject)
return 1
