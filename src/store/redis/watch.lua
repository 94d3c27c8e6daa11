-- ARGV: device, jid, interval, from when on to be rechecked at the latest, how many at the most, the state of somebody unknown.
local name = known(ARGV[1], ARGV[2])
local subject = name and load(name)
if not (subject and subject.watch) and redis.call('ZCARD', WATCHES) >= tonumber(ARGV[5]) then
    return 0
end
name = name or name_of(number_of(ARGV[1], true), ARGV[2])
if not subject then
    -- Who was never looked at comes after all whose turn has come.
    local rank = tonumber(virtual_now(number_of(ARGV[1])))
    subject = { revision = 0, state = ARGV[6], rank = rank, outlook = false, held = {} }
    count('subjects', 1)
end
for variant in pairs(subject.held) do
    end_idle(name, variant)
end
subject.watch = tonumber(ARGV[3])
redis.call('ZADD', WATCHES, 0, ARGV[1] .. '\0' .. ARGV[2])
if not redis.call('ZSCORE', lane('ready', name)) then
    local wait, whom = lane('wait', name)
    redis.call('ZADD', wait, 'LT', ARGV[4], whom)
end
save(name, subject)
return 1
