-- The one atomic compare and write.
-- ARGV: device, jid, variant, start, expected, state, record, due, requested or '', other variant or '', its due time,
-- siblings' due time or '', and if there is a change: kind, at, event id, reason, old id, new id, version, not before.
local device, jid, variant = ARGV[1], ARGV[2], tonumber(ARGV[3])
local start, expected = tonumber(ARGV[4]), tonumber(ARGV[5])

for _, at in ipairs(redis.call('HMGET', FORGOTTEN, jid, jid .. '\0' .. device)) do
    if at and start < tonumber(at) then
        return { 'forgotten' }
    end
end
local meta = redis.call('HMGET', META, 'forgotten', 'tokens')
if start < tonumber(meta[1]) then
    return { 'forgotten' }
end

local name = known(device, jid)
local subject = name and load(name)
if (subject and subject.revision or 0) ~= expected then
    return { 'conflict', told(subject, variant) }
end

-- Nothing was written up to here; nothing fails from here on.
name = name or name_of(number_of(device, true), jid)
local sequence = 0
if ARGV[13] and redis.call('ZADD', base .. 'h:' .. name, 'NX', 0, ARGV[15]) == 1 then
    sequence = append(ARGV[13], ARGV[14], device, jid, unpack(ARGV, 15, 20))
    redis.call('ZADD', base .. 'h:' .. name, sequence, ARGV[15])
end
-- A server that lost its last moments may have handed out more than it knows of.
if start < 2 ^ 53 and start > tonumber(meta[2]) then
    redis.call('HSET', META, 'tokens', ARGV[4])
end
local token = redis.call('HINCRBY', META, 'tokens', 1)

if not subject then
    subject = { watch = false, held = {} }
    count('subjects', 1)
end
subject.revision, subject.state = token, ARGV[6]
local held = subject.held[variant] or { requested = false, record = false }
subject.held[variant] = held
if not held.record then
    count('entries', 1)
end
held.record = ARGV[7]
local requested = tonumber(ARGV[9])
if requested and requested > (held.requested or -math.huge) then
    held.requested = requested
end
keep_idle(name, subject, variant, ARGV[8])
redis.call('ZADD', DUE, ARGV[8], variant .. name)

local siblings = tonumber(ARGV[12])
if siblings then
    for other, sibling in pairs(subject.held) do
        if other ~= variant and sibling.record then
            due_by(name, subject, other, siblings)
        end
    end
end
if ARGV[10] ~= '' then
    due_by(name, subject, tonumber(ARGV[10]), tonumber(ARGV[11]))
end
save(name, subject)
return { 'done', token, sequence }
