-- ARGV: device, and which deadlines are asked for, counted from 1.
local number, deadlines = number_of(ARGV[1]), {}
if not number then
    return { 0, deadlines }
end
for at = 2, #ARGV do
    local place = tonumber(ARGV[at]) - 1
    local key, due = unpack(redis.call('ZRANGE', base .. 'due:' .. number, place, place, 'WITHSCORES'))
    if not key then
        break
    end
    local subject = load(in_lane(number, string.sub(key, 2)))
    local held = subject and subject.held[tonumber(string.sub(key, 1, 1))]
    deadlines[#deadlines + 1] = { tonumber(due), held and held.requested or false }
end
return { redis.call('ZCARD', base .. 'wait:' .. number) + redis.call('ZCARD', base .. 'ready:' .. number), deadlines }
