-- What the scripts begin with that ask who is there, behind `common`.
--
-- Each replica says every second that it is there. One that has not for a while is absent for another that has been there all that
-- time: so nobody is absent because the server was away.

local REPLICAS = base .. 'replicas'

-- For how long nothing was heard of who is absent, and between what was heard of who is there all the time (us).
local ABSENT, BREAK = 5000000, 3000000

-- What was heard of a replica: since when without a break, and when last.
local function heard_of(replica)
    local since, last = string.match(redis.call('HGET', REPLICAS, replica) or '', '^(%d+) (%d+)$')
    return tonumber(since), tonumber(last)
end

local function hear(replica, now)
    local since, last = heard_of(replica)
    if not since or now < last or last + BREAK < now then
        since = now
    end
    redis.call('HSET', REPLICAS, replica, string.format('%.0f %.0f', since, now))
end

-- Nothing is known of who was never heard of.
local function is_absent(replica, me, now)
    if not replica or replica == me then
        return false
    end
    local _, last = heard_of(replica)
    local since, mine = heard_of(me)
    return last and since and last + ABSENT < now and since + ABSENT < now and now <= mine + BREAK
end
