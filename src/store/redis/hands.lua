-- What the scripts begin with that take what is to be looked at, put it back or end it, behind `presence`.
--
-- Whose lease it is stands beside the schedule: in the hand of a replica are keys (a variant) and subjects ('-'), with the time that
-- they had before, by the ends of their leases. What has another time by now is not in it any more.

-- How much is known of one replica's hand; its devices have less under way at once.
local HAND = 1024

local function hand_of(replica)
    return base .. 'hand:' .. replica
end

local function take(replica, what, name, before, lease)
    -- Nobody would put it back.
    if not heard_of(replica) then
        return
    end
    local hand = hand_of(replica)
    redis.call('ZADD', hand, lease, what .. ' ' .. exact(before) .. ' ' .. name)
    redis.call('ZREMRANGEBYRANK', hand, 0, -1 - HAND)
end

local function taken_by(replica)
    local hand, taken = redis.call('ZRANGE', hand_of(replica), 0, -1, 'WITHSCORES'), {}
    for at = 1, #hand, 2 do
        local what, before, name = string.match(hand[at], '^(%S+) (%S+) (.*)$')
        taken[#taken + 1] =
            { member = hand[at], variant = tonumber(what), before = before, name = name, lease = tonumber(hand[at + 1]) }
    end
    return taken
end

local function put_back(replica)
    for _, one in ipairs(taken_by(replica)) do
        local name, variant = one.name, one.variant
        if not variant then
            local wait, whom = lane('wait', name)
            if tonumber(redis.call('ZSCORE', wait, whom) or nil) == one.lease then
                recheck_from(name, one.before)
            end
        elseif due_of(name, variant) == one.lease then
            schedule(name, load(name), variant, one.before)
        end
    end
    redis.call('DEL', hand_of(replica))
end

-- Nobody has it in hand any more.
local function let_go(name)
    for _, replica in ipairs(redis.call('HKEYS', REPLICAS)) do
        for _, one in ipairs(taken_by(replica)) do
            if one.name == name then
                redis.call('ZREM', hand_of(replica), one.member)
            end
        end
    end
end
