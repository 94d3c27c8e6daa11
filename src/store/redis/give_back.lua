-- ARGV: the replica; lanes and names of places, in turn.
for at = 2, #ARGV, 2 do
    redis.call('ZREM', base .. 'places:' .. ARGV[at], ARGV[1] .. ' ' .. ARGV[at + 1])
end
