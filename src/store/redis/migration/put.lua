-- Writes a page of what another engine holds, once: a page that is sent twice meets itself.
-- ARGV: the place that it was read from, the place behind it, the part, how many items, and those.
if redis.call('HGET', META, 'place') ~= ARGV[1] then
    return redis.call('HGET', META, 'place') == ARGV[2] and 1 or 0
end

-- What is empty is nothing.
local function given(at)
    return ARGV[at] ~= '' and ARGV[at]
end

-- Each of these writes the item whose arguments begin at `at`, and says where the next one's begin.
local put = {}

-- Device, record.
function put.devices(at)
    redis.call('HSET', base .. 'device_records', ARGV[at], ARGV[at + 1])
    return at + 2
end

-- Device, jid, revision, state, watch, rank, outlook, when to be rechecked ('ready': that has come), how many pictures; and for
-- each: variant, due, requested, record, when it dies, when it was looked at.
function put.subjects(at)
    local device, jid, recheck, pictures = ARGV[at], ARGV[at + 1], ARGV[at + 7], tonumber(ARGV[at + 8])
    local name = name_of(number_of(device, true), jid)
    local subject = {
        revision = tonumber(ARGV[at + 2]), state = ARGV[at + 3], watch = tonumber(ARGV[at + 4]) or false,
        rank = tonumber(ARGV[at + 5]), outlook = given(at + 6), held = {},
    }
    local dues = {}
    at = at + 9
    for _ = 1, pictures do
        local variant, record = tonumber(ARGV[at]), given(at + 3)
        dues[variant] = tonumber(ARGV[at + 1])
        subject.held[variant] = {
            requested = tonumber(ARGV[at + 2]) or false, record = record,
            dead_at = tonumber(ARGV[at + 4]), checked_at = tonumber(ARGV[at + 5]),
        }
        if record then
            count('entries', 1)
        end
        at = at + 6
    end
    count('subjects', 1)
    if subject.watch then
        redis.call('ZADD', WATCHES, 0, device .. '\0' .. jid)
    end
    if recheck == 'ready' then
        local ready, whom = lane('ready', name)
        redis.call('ZADD', ready, subject.rank, whom)
    elseif recheck ~= '' then
        recheck_from(name, recheck)
    end
    for variant in pairs(subject.held) do
        keep_idle(name, subject, variant, dues[variant])
        schedule(name, subject, variant, dues[variant])
    end
    save(name, subject)
    return at
end

-- Device, virtual time.
function put.lanes(at)
    redis.call('HSET', VIRTUAL, number_of(ARGV[at], true), ARGV[at + 1])
    return at + 2
end

-- Sequence, and what it says.
function put.log(at)
    redis.call('HSET', META, 'last', string.format('%.0f', tonumber(ARGV[at]) - 1))
    append(unpack(ARGV, at + 1, at + 10))
    local event_id = ARGV[at + 5]
    if event_id ~= '' then
        local name = name_of(number_of(ARGV[at + 3], true), ARGV[at + 4])
        redis.call('ZADD', base .. 'h:' .. name, ARGV[at], event_id)
    end
    return at + 11
end

-- Id, record, standing.
function put.endpoints(at)
    redis.call('HSET', ENDPOINTS, ARGV[at], ARGV[at + 1])
    redis.call('HSET', STANDINGS, ARGV[at], ARGV[at + 2])
    return at + 3
end

-- Endpoint, sequence, event id, device, jid (both empty: nobody's), attempts, first attempt's time, due time, 1 if it is dead, what
-- is sent, when what it tells of was noticed.
function put.deliveries(at)
    local id, sequence, event_id, device, jid = unpack(ARGV, at, at + 4)
    local name = jid ~= '' and name_of(number_of(device, true), jid)
    local delivery = {
        event_id, name, tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6]) or false, tonumber(ARGV[at + 7]), ARGV[at + 9],
        tonumber(ARGV[at + 10]),
    }
    keep_delivery(id, sequence, delivery, ARGV[at + 8] == '1')
    return at + 11
end

local at = 5
for _ = 1, tonumber(ARGV[4]) do
    at = put[ARGV[3]](at)
end
redis.call('HSET', META, 'place', ARGV[2])
count('rows', ARGV[4])
return 1
