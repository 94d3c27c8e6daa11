return redis.call('HGET', META, 'lessons')
