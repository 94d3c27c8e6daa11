-- What every script but `open` begins with: the names of the keys, and how a subject is kept.
--
-- KEYS[1] is the hash `meta`. Every other key begins as it does, up to and with the hash tag in braces, so that all are in one
-- slot of a cluster. Numbers are doubles here, as in scores: exact up to 2^53, which the caller sees to.

local META = KEYS[1]
local base = string.sub(META, 1, -5)
local IDLE, WATCHES, VIRTUAL = base .. 'idle', base .. 'watches', base .. 'virtual'
local LOG, DEVICES, NAMES = base .. 'log', base .. 'devices', base .. 'names'
local FORGOTTEN, FORGOTTEN_AT = base .. 'forgotten', base .. 'forgotten_at'
local ENDPOINTS, STANDINGS, DEAD_AGES = base .. 'endpoints', base .. 'standings', base .. 'dead_ages'
local LEASES = base .. 'leases'

-- The last three arguments of every script, the log as the caller has seen it: the last event id, the epoch, the last sequence.
local seen_last, seen_epoch, seen_event = tonumber(table.remove(ARGV)), table.remove(ARGV), table.remove(ARGV)
local found = redis.call('HMGET', META, 'epoch', 'last')
-- What is being filled from another engine has no epoch yet, and is a store for whoever fills it.
if not found[1] and redis.call('HGET', META, 'migration') ~= seen_epoch then
    return redis.error_reply('EMPTIED nothing is left of the store')
elseif found[1] == seen_epoch and tonumber(found[2]) < seen_last then
    return redis.error_reply('LOST the server has lost what was written last')
end

local PERSON = '@s.whatsapp.net'

-- A device's number: names are long, and stand in every subject's name. None is given twice.
local function number_of(device, make)
    local number = redis.call('HGET', DEVICES, device)
    if not number and make then
        number = redis.call('HINCRBY', META, 'devices', 1)
        redis.call('HSET', DEVICES, device, number)
        redis.call('HSET', NAMES, number, device)
    end
    return number
end

-- `1/6281234567890` for a person, `1/120363025246125486@g.us` for whoever else.
local function name_of(number, jid)
    if string.sub(jid, -#PERSON) == PERSON then
        jid = string.sub(jid, 1, -#PERSON - 1)
    end
    return number .. '/' .. jid
end

-- The name of a subject that may never have been heard of: none then.
local function known(device, jid)
    local number = number_of(device)
    if number then
        return name_of(number, jid)
    end
end

-- The inverse of `name_of`: device and jid.
local function whose(name)
    local number, jid = string.match(name, '^(%d+)/(.*)$')
    if not string.find(jid, '@', 1, true) then
        jid = jid .. PERSON
    end
    return redis.call('HGET', NAMES, number), jid
end

-- The names of a jid's subjects, whether there are such or not: as this device sees it, or (an empty list) as any.
local function names_of(jid, devices)
    local names = {}
    if #devices > 0 then
        names[1] = known(devices[1], jid)
    else
        for _, number in ipairs(redis.call('HKEYS', NAMES)) do
            names[#names + 1] = name_of(number, jid)
        end
    end
    return names
end

-- Of what kind is looked at when, each device has a sorted set of its own: `due` keys by deadline; subjects that `wait` by the time
-- from when on they may be rechecked; subjects that are `ready` by rank. In these a subject goes by its name without the device's
-- number, so that a person's takes no more than 16 bytes. Says which set, and as what the subject is in it.
local function lane(kind, name)
    local number, whom = string.match(name, '^(%d+)/(.*)$')
    return base .. kind .. ':' .. number, whom
end

-- The same of a key that is due; it is a variant and the subject.
local function due_lane(name, variant)
    local set, whom = lane('due', name)
    return set, variant .. whom
end

-- The inverse: the name of whom a device has in one of its sets.
local function in_lane(number, whom)
    return number .. '/' .. whom
end

-- A number that an answer would round.
local function exact(number)
    return string.format('%.17g', number)
end

-- The virtual time of a device's rechecks, as text; that of nobody's device is where all begin.
local function virtual_now(number)
    return number and redis.call('HGET', VIRTUAL, number) or '0'
end

-- A subject is one string under its name, because that takes the least room: a MessagePack array of revision, the watch's interval
-- or false, state, rank, outlook or false, and for each variant held its number, its record or false, and what scripts need to
-- know: when it was looked at, and counted from then, because small numbers take less room, when it dies, and when it was last
-- asked for or false.
local function unpacked(packed)
    local fields = cmsgpack.unpack(packed)
    local subject =
        { revision = 0 + fields[1], watch = fields[2], state = fields[3], rank = fields[4], outlook = fields[5], held = {} }
    for at = 6, #fields, 5 do
        local checked_at, requested = fields[at + 2], fields[at + 4]
        subject.held[fields[at]] = {
            record = fields[at + 1], checked_at = checked_at, dead_at = checked_at + fields[at + 3],
            requested = requested and checked_at + requested,
        }
    end
    return subject
end

local function load(name)
    local packed = redis.call('GET', base .. name)
    if not packed then
        return nil
    end
    local is_read, subject = pcall(unpacked, packed)
    -- Damaged: without a state, which the reader will notice, until it is written anew.
    return is_read and subject or { revision = 0, watch = false, state = '', rank = 0, outlook = false, held = {} }
end

local function save(name, subject)
    local fields = { subject.revision, subject.watch, subject.state, subject.rank, subject.outlook }
    for variant = 0, 3 do
        local held = subject.held[variant]
        if held then
            local checked_at = held.checked_at or 0
            fields[#fields + 1] = variant
            fields[#fields + 1] = held.record
            fields[#fields + 1] = checked_at
            fields[#fields + 1] = (held.dead_at or checked_at) - checked_at
            fields[#fields + 1] = held.requested and held.requested - checked_at
        end
    end
    redis.call('SET', base .. name, cmsgpack.pack(fields))
end

local function count(what, by)
    redis.call('HINCRBY', META, what, by)
end

-- What a lookup is told of a subject: the virtual time of its device, and if there is anything, what it is.
local function told(name, subject, variant)
    local now = virtual_now(name and string.match(name, '^%d+'))
    if not subject then
        return { now }
    end
    local held = subject.held[variant] or {}
    return {
        now, subject.revision, subject.state, subject.watch, subject.outlook, held.requested or false,
        held.record or false,
    }
end

local function due_of(name, variant)
    return tonumber(redis.call('ZSCORE', due_lane(name, variant)) or nil)
end

-- Since when keys are idle stands in many sorted sets, because the server keeps small ones in a quarter of the room: up to 128 keys
-- in each, and so two million in as many as there are. Says in which of them a subject's keys are.
local function shard_of(name)
    return tonumber(string.sub(redis.sha1hex(name), 1, 4), 16) % 16384
end

-- Since when a key is idle at the earliest, for each of these sets: those in which none can be need not be looked at.
local function sound(shard)
    local since = redis.call('ZRANGE', base .. 'idle:' .. shard, 0, 0, 'WITHSCORES')[2]
    if since then
        redis.call('ZADD', IDLE, since, shard)
    else
        redis.call('ZREM', IDLE, shard)
    end
end

-- Since when nobody wants it: since somebody asked, or if nobody ever did, since it was due; who is watched is never idle.
local function keep_idle(name, subject, variant, due)
    if not subject.watch then
        local shard, since = shard_of(name), subject.held[variant].requested or due or '-inf'
        redis.call('ZADD', base .. 'idle:' .. shard, since, variant .. name)
        redis.call('ZADD', IDLE, 'LT', since, shard)
    end
end

local function end_idle(name, variant)
    local shard = shard_of(name)
    redis.call('ZREM', base .. 'idle:' .. shard, variant .. name)
    sound(shard)
end

-- Sets or (without one) ends the due time of a variant that is held.
local function schedule(name, subject, variant, due)
    local deadlines, key = due_lane(name, variant)
    if due then
        redis.call('ZADD', deadlines, due, key)
    else
        redis.call('ZREM', deadlines, key)
    end
    if not subject.held[variant].requested then
        keep_idle(name, subject, variant, due)
    end
end

-- Has a variant looked at by then, held or not.
local function due_by(name, subject, variant, due)
    subject.held[variant] = subject.held[variant] or { requested = false, record = false }
    schedule(name, subject, variant, math.min(due_of(name, variant) or due, due))
end

local function unschedule(name, variant)
    redis.call('ZREM', due_lane(name, variant))
    end_idle(name, variant)
end

-- Sets or (without one) ends the time from when on a subject may be rechecked.
local function recheck_from(name, at)
    local ready, whom = lane('ready', name)
    local wait = lane('wait', name)
    redis.call('ZREM', ready, whom)
    if at then
        redis.call('ZADD', wait, at, whom)
    else
        redis.call('ZREM', wait, whom)
        if redis.call('ZCARD', wait) + redis.call('ZCARD', ready) == 0 then
            redis.call('HDEL', VIRTUAL, string.match(name, '^%d+'))
        end
    end
end

local function is_rechecked(name)
    return redis.call('ZSCORE', lane('wait', name)) or redis.call('ZSCORE', lane('ready', name))
end

-- A subject of which nothing is held any more.
local function drop(name)
    redis.call('DEL', base .. name)
    recheck_from(name, false)
    count('subjects', -1)
end

local function place(sequence)
    return string.format('%.0f-0', sequence)
end

-- Appends to the log; every record has the same fields, which a stream keeps in less room. Empty where there is nothing to say.
local function append(kind, at, device, jid, event_id, reason, old_id, new_id, version, not_before)
    local sequence = redis.call('HINCRBY', META, 'last', 1)
    redis.call('XADD', LOG, place(sequence), 'kind', kind, 'at', at, 'device', device, 'jid', jid, 'event_id', event_id,
        'reason', reason, 'old_id', old_id, 'new_id', new_id, 'version', version, 'not_before', not_before)
    return sequence
end

-- A stream's entry: its sequence, and its fields by name.
local function record_of(entry)
    local fields = {}
    for at = 1, #entry[2], 2 do
        fields[entry[2][at]] = entry[2][at + 1]
    end
    return tonumber(string.match(entry[1], '^%d+')), fields
end

-- Tokens only grow, also where the server has lost its last moments.
local function notice(seen)
    if seen > tonumber(redis.call('HGET', META, 'tokens')) then
        redis.call('HSET', META, 'tokens', seen)
        count('losses', 1)
    end
end

local function next_token(seen)
    notice(seen)
    return redis.call('HINCRBY', META, 'tokens', 1)
end

local function extent()
    local meta = redis.call('HMGET', META, 'epoch', 'trimmed', 'last', 'former')
    return meta[1], tonumber(meta[2]), tonumber(meta[3]), meta[4] or ''
end

-- How many replicas the server has, and what it calls the history that it shares with them: a promoted one begins another.
local function replicas()
    local info = redis.call('INFO', 'replication')
    return tonumber(string.match(info, 'connected_slaves:(%d+)') or 0), string.match(info, 'master_replid:(%x+)') or ''
end

-- Takes out what is kept of one delivery of an endpoint.
local function end_delivery(endpoint, sequence, name)
    redis.call('HDEL', base .. 'd:' .. endpoint, sequence)
    redis.call('ZREM', base .. 'waiting:' .. endpoint, sequence)
    redis.call('ZREM', base .. 'dead:' .. endpoint, sequence)
    redis.call('ZREM', DEAD_AGES, sequence .. ' ' .. endpoint)
    if name then
        redis.call('SREM', base .. 'o:' .. name, sequence .. ' ' .. endpoint)
    end
end

-- A delivery is a MessagePack array: event id, subject's name or false, attempts, the first one's time or false, due time, what
-- is sent, when what it tells of was noticed.
local function delivery_of(endpoint, sequence)
    local packed = redis.call('HGET', base .. 'd:' .. endpoint, sequence)
    return packed and cmsgpack.unpack(packed)
end

-- Who delivers for an endpoint: token, beat, holder. The token is 0 where nobody does.
local function lease_of(endpoint)
    local token, beat, holder = string.match(redis.call('HGET', LEASES, endpoint) or '', '^(%d+) (%d+) (.*)$')
    return tonumber(token or 0), tonumber(beat or 0), holder
end

-- A delivery is to be made, and not dead.
local function wait_again(endpoint, sequence)
    redis.call('ZREM', base .. 'dead:' .. endpoint, sequence)
    redis.call('ZREM', DEAD_AGES, sequence .. ' ' .. endpoint)
    redis.call('ZADD', base .. 'waiting:' .. endpoint, sequence, sequence)
end

-- Keeps a delivery, among those that are dead or that are to be made.
local function keep_delivery(endpoint, sequence, delivery, is_dead)
    local name, noticed_at = delivery[2], delivery[7]
    if name then
        redis.call('SADD', base .. 'o:' .. name, sequence .. ' ' .. endpoint)
    end
    redis.call('HSET', base .. 'd:' .. endpoint, sequence, cmsgpack.pack(delivery))
    if is_dead then
        redis.call('ZADD', base .. 'dead:' .. endpoint, sequence, sequence)
        redis.call('ZADD', DEAD_AGES, noticed_at, sequence .. ' ' .. endpoint)
        redis.call('ZREM', base .. 'waiting:' .. endpoint, sequence)
    else
        wait_again(endpoint, sequence)
    end
end
