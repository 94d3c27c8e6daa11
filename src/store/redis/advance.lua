-- ARGV: device, jid, revision, rank, outlook, from when on to be rechecked at the latest.
local name = known(ARGV[1], ARGV[2])
local subject = name and load(name)
if subject and subject.revision == tonumber(ARGV[3]) then
    subject.rank, subject.outlook = tonumber(ARGV[4]), ARGV[5]
    save(name, subject)
    local ready, whom = lane('ready', name)
    redis.call('ZADD', ready, 'XX', subject.rank, whom)
    redis.call('ZADD', lane('wait', name), 'XX', 'LT', ARGV[6], whom)
end
