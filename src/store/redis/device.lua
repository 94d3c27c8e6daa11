-- ARGV: device.
return redis.call('HGET', base .. 'device_records', ARGV[1])
