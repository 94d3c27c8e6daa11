-- The one atomic compare and write.
-- ARGV: device, jid, variant, start, expected, state, record, due time or '', requested or '', other variant or '', its due time,
-- siblings' due time or '', the highest token that was seen, outlook, rank, from when on it may be rechecked, when the entry dies,
-- when it was looked at, 1 if a flight ends with this or '', the clock; and if there is a change: kind, at, event id, reason,
-- old id, new id, version, not before.
local device, jid, variant = ARGV[1], ARGV[2], tonumber(ARGV[3])
local start, expected = tonumber(ARGV[4]), tonumber(ARGV[5])
local flown = ARGV[19] ~= ''
local key = flight_key(device, jid, variant)
local flight = flown and flight_at(key, clock(ARGV[20]))
if flight and flight[1] ~= start then
    flight = nil
end

-- Nothing of a look is kept whose subject was forgotten since.
local function forgotten()
    if flight then
        land(key, flight)
    end
    return { 'forgotten' }
end

for _, at in ipairs(redis.call('HMGET', FORGOTTEN, jid, jid .. '\0' .. device)) do
    if at and start < tonumber(at) then
        return forgotten()
    end
end
if start < tonumber(redis.call('HGET', META, 'forgotten')) then
    return forgotten()
end

local name = known(device, jid)
local subject = name and load(name)
if (subject and subject.revision or 0) ~= expected then
    return { 'conflict', told(name, subject, variant) }
end
-- Behind the comparison, so that a write that is sent twice meets itself and not the end of its flight.
if flown and not flight then
    return { 'late' }
end

-- Nothing was written up to here; nothing fails from here on.
name = name or name_of(number_of(device, true), jid)
local sequence = 0
local events = base .. 'h:' .. name
if ARGV[21] and redis.call('ZADD', events, 'NX', 0, ARGV[23]) == 1 then
    sequence = append(ARGV[21], ARGV[22], device, jid, unpack(ARGV, 23, 28))
    redis.call('ZADD', events, sequence, ARGV[23])
end
local token = next_token(tonumber(ARGV[13]))

if not subject then
    subject = { watch = false, held = {} }
    count('subjects', 1)
end
subject.revision, subject.state, subject.outlook, subject.rank = token, ARGV[6], ARGV[14], tonumber(ARGV[15])
recheck_from(name, ARGV[16])
local held = subject.held[variant] or { requested = false, record = false }
subject.held[variant] = held
if not held.record then
    count('entries', 1)
end
held.record, held.dead_at, held.checked_at = ARGV[7], tonumber(ARGV[17]), tonumber(ARGV[18])
local requested = tonumber(ARGV[9])
if requested and requested > (held.requested or -math.huge) then
    held.requested = requested
end
local due = tonumber(ARGV[8])
keep_idle(name, subject, variant, due)
schedule(name, subject, variant, due)

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
if flight then
    redis.call('HDEL', endings_of(jid), variant .. device)
    land(key, flight)
end
return { 'done', token, sequence }
