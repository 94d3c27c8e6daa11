-- Grants, renews or takes back a share of the reserve.
-- ARGV: holder, turn, the share that it uses, how many may have one, whether it wants none any more, the clock.
--
-- The larger of what is granted and what is used is booked, because the answer may be lost. What nobody has booked is granted: a
-- newcomer waits until the others have renewed with a place for it.
local holder, turn, using, most, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), clock(ARGV[6])
for _, ended in ipairs(redis.call('ZRANGEBYSCORE', RESERVE_ENDS, '-inf', whole(now))) do
    redis.call('HDEL', RESERVES, ended)
    redis.call('ZREM', RESERVE_ENDS, ended)
end
local others, booked = 0, 0
local kept = redis.call('HGETALL', RESERVES)
for at = 1, #kept, 2 do
    local last, share = string.match(kept[at + 1], '^(%d+) (.*)$')
    if kept[at] ~= holder then
        others, booked = others + 1, booked + tonumber(share)
    elseif turn <= tonumber(last) then
        return { '0', mark() }
    end
end
local is_unsettled, grants = unsettled(now)
if is_unsettled then
    most = grants and math.floor(most / 2) or 0
end
local grant = 0
if others < most then
    grant = math.max(0, math.min(1 / (others + 1), 1 - booked))
end
local share = math.max(grant, using)
if ARGV[5] == '1' or share == 0 and others >= most then
    redis.call('HDEL', RESERVES, holder)
    redis.call('ZREM', RESERVE_ENDS, holder)
else
    redis.call('HSET', RESERVES, holder, whole(turn) .. ' ' .. string.format('%.17g', share))
    redis.call('ZADD', RESERVE_ENDS, whole(now + RESERVED), holder)
end
return { string.format('%.17g', grant), mark() }
