-- ARGV: device, record.
redis.call('HSET', base .. 'device_records', ARGV[1], ARGV[2])
