-- ARGV: from where, how many at the most.
local epoch, trimmed, last, former = extent()
local entries = ARGV[2] == '0' and {} or redis.call('XRANGE', LOG, ARGV[1], '+', 'COUNT', ARGV[2])
return { epoch, trimmed, last, former, entries, replicas() }
