-- ARGV: what was learnt.
redis.call('HSET', META, 'lessons', ARGV[1])
