-- ARGV: before when, how many at the most, the time up to which it need not be remembered who was forgotten, how many sets are looked
-- through at the most.
for _, whom in ipairs(redis.call('ZRANGEBYSCORE', FORGOTTEN_AT, '-inf', ARGV[3], 'LIMIT', 0, 100)) do
    -- Whatever began before is turned away from now on, whoever it is about: no clock has to be right.
    local floor = math.max(tonumber(redis.call('HGET', META, 'forgotten')), tonumber(redis.call('HGET', FORGOTTEN, whom)))
    redis.call('HSET', META, 'forgotten', floor)
    redis.call('HDEL', FORGOTTEN, whom)
    redis.call('ZREM', FORGOTTEN_AT, whom)
end
local gone, left = {}, tonumber(ARGV[2])
local shards = redis.call('ZRANGEBYSCORE', IDLE, '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[4])
for _, shard in ipairs(shards) do
    local idle = redis.call('ZRANGEBYSCORE', base .. 'idle:' .. shard, '-inf', '(' .. ARGV[1], 'LIMIT', 0, left)
    left = left - #idle
    for _, member in ipairs(idle) do
        local variant, name = tonumber(string.sub(member, 1, 1)), string.sub(member, 2)
        local subject = load(name)
        unschedule(name, variant)
        if subject then
            if subject.held[variant] and subject.held[variant].record then
                count('entries', -1)
            end
            subject.held[variant] = nil
            if next(subject.held) or subject.watch then
                save(name, subject)
            else
                drop(name)
                local device, jid = whose(name)
                gone[#gone + 1] = { device, jid }
            end
        end
    end
    sound(shard)
end
return { tonumber(ARGV[2]) - left, #shards, gone }
