-- ARGV: device, and which deadlines are asked for, counted from 1.
local number, deadlines = number_of(ARGV[1]), {}
if not number then
    return { 0, deadlines }
end
for at = 2, #ARGV do
    local place = tonumber(ARGV[at]) - 1
    local deadline = redis.call('ZRANGE', base .. 'due:' .. number, place, place, 'WITHSCORES')[2]
    deadlines[#deadlines + 1] = tonumber(deadline or nil) or false
end
return { redis.call('ZCARD', base .. 'wait:' .. number) + redis.call('ZCARD', base .. 'ready:' .. number), deadlines }
