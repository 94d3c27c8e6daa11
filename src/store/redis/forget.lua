-- ARGV: jid, when, the highest token that was seen, and the device unless all are meant.
local jid, devices = ARGV[1], { ARGV[4] }
local whom = devices[1] and jid .. '\0' .. devices[1] or jid
redis.call('HSET', FORGOTTEN, whom, next_token(tonumber(ARGV[3])))
redis.call('ZADD', FORGOTTEN_AT, ARGV[2], whom)

-- What the gateway said in a failure may name somebody. A flight under way stays, until it ends or its lease does.
if devices[1] then
    for variant = 0, 3 do
        redis.call('HDEL', endings_of(jid), variant .. devices[1])
    end
else
    redis.call('DEL', endings_of(jid))
end

local held = false
for _, name in ipairs(names_of(jid, devices)) do
    local subject = load(name)
    if subject then
        held = true
        for variant = 0, 3 do
            if subject.held[variant] and subject.held[variant].record then
                count('entries', -1)
            end
            unschedule(name, variant)
        end
        redis.call('ZREM', WATCHES, whose(name) .. '\0' .. jid)
        drop(name)
    end
    local records = redis.call('ZRANGE', base .. 'h:' .. name, 0, -1, 'WITHSCORES')
    for at = 1, #records, 2 do
        held = true
        redis.call('XDEL', LOG, records[at + 1] .. '-0')
    end
    redis.call('DEL', base .. 'h:' .. name)
    let_go(name)
    for _, delivery in ipairs(redis.call('SMEMBERS', base .. 'o:' .. name)) do
        held = true
        local sequence, endpoint = string.match(delivery, '^(%d+) (.*)$')
        end_delivery(endpoint, sequence, name)
    end
end
return held and append('forgotten', ARGV[2], '', '', '', '', '', '', '', '') or 0
