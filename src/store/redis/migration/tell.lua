-- Tells what has become of items that were put, each as it is found by whoever looks for it now; false for what is not there.
-- ARGV: the part, and the names of the items.
local tell = {}

function tell.devices(device)
    return { redis.call('HGET', base .. 'device_records', device) }
end

function tell.subjects(device, jid)
    local name = known(device, jid)
    local subject = name and load(name)
    if not subject then
        return {}
    end
    local recheck = redis.call('ZSCORE', lane('ready', name)) and 'ready' or redis.call('ZSCORE', lane('wait', name))
    local watch = redis.call('ZSCORE', WATCHES, device .. '\0' .. jid) and subject.watch
    local pictures = {}
    for variant = 0, 3 do
        local held = subject.held[variant]
        if held then
            pictures[#pictures + 1] = {
                variant, due_of(name, variant) or false, held.requested, held.record, held.dead_at, held.checked_at,
            }
        end
    end
    return { subject.revision, subject.state, watch, exact(subject.rank), subject.outlook, recheck, pictures }
end

function tell.lanes(device)
    return { redis.call('HGET', VIRTUAL, number_of(device) or '') }
end

function tell.log(sequence)
    local entry = redis.call('XRANGE', LOG, sequence .. '-0', sequence .. '-0')[1]
    if not entry then
        return {}
    end
    local _, fields = record_of(entry)
    local name = fields.event_id ~= '' and known(fields.device, fields.jid)
    if name and redis.call('ZSCORE', base .. 'h:' .. name, fields.event_id) ~= sequence then
        return {}
    end
    return {
        fields.kind, fields.at, fields.device, fields.jid, fields.event_id, fields.reason, fields.old_id, fields.new_id,
        fields.version, fields.not_before,
    }
end

function tell.endpoints(id)
    return { redis.call('HGET', ENDPOINTS, id), redis.call('HGET', STANDINGS, id) }
end

function tell.deliveries(id, sequence)
    local delivery = delivery_of(id, sequence)
    if not delivery then
        return {}
    end
    local event_id, name, attempts, first_at, due_at, json, noticed_at = unpack(delivery)
    local device, jid = false, false
    if name and redis.call('SISMEMBER', base .. 'o:' .. name, sequence .. ' ' .. id) == 1 then
        device, jid = whose(name)
    end
    local dead = redis.call('ZSCORE', base .. 'dead:' .. id, sequence) and 1 or 0
    return { event_id, device, jid, attempts, first_at, due_at, dead, json, noticed_at }
end

local found, words = {}, { subjects = 2, deliveries = 2 }
local step = words[ARGV[1]] or 1
for at = 2, #ARGV, step do
    found[#found + 1] = tell[ARGV[1]](unpack(ARGV, at, at + step - 1))
end
return found
