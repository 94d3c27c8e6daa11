-- ARGV: endpoint.
return { redis.call('ZCARD', base .. 'waiting:' .. ARGV[1]), redis.call('ZCARD', base .. 'dead:' .. ARGV[1]) }
