-- As much as a busy moment would write, and nothing left of it.
redis.call('SET', base .. 'room', string.rep('\0', 262144))
redis.call('DEL', base .. 'room')
