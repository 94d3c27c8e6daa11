-- ARGV: lanes and names of places, in turn.
for at = 1, #ARGV, 2 do
    redis.call('ZREM', base .. 'places:' .. ARGV[at], ARGV[at + 1])
end
