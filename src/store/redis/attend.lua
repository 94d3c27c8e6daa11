-- Says that a replica is there, and puts back what absent ones took to look at.
-- ARGV: the replica, the time, the clock.
local me, now = ARGV[1], clock(ARGV[3])
hear(me, now)
-- What is there has a lease by the wall clock.
redis.call('ZREMRANGEBYSCORE', hand_of(me), '-inf', ARGV[2])
for _, replica in ipairs(redis.call('HKEYS', REPLICAS)) do
    if is_absent(replica, me, now) then
        put_back(replica)
        local _, last = heard_of(replica)
        -- Whatever it had under way is over.
        if last + 3600000000 < now then
            redis.call('HDEL', REPLICAS, replica)
        end
    end
end
