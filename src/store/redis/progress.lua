-- ARGV: endpoint, standing, the lease's token, another record of the endpoint or '', how many are kept; for each of those: sequence, event id, device, jid (both empty: nobody's), attempts,
-- first attempt's time or '', due time, 1 if it is dead, what is sent, when what it tells of was noticed; then the sequences of those that ended.
local id, kept = ARGV[1], tonumber(ARGV[5])
if redis.call('HEXISTS', ENDPOINTS, id) == 0 then
    return 'dropped'
elseif lease_of(id) ~= tonumber(ARGV[3]) then
    return 'fenced'
end
redis.call('HSET', STANDINGS, id, ARGV[2])
if ARGV[4] ~= '' then
    redis.call('HSET', ENDPOINTS, id, ARGV[4])
end

for at = 6, 5 + 10 * kept, 10 do
    local sequence, event_id, device, jid = unpack(ARGV, at, at + 3)
    local before = delivery_of(id, sequence)
    local wanted = before or jid == ''
    if not wanted then
        -- What is in neither the log nor here was forgotten meanwhile.
        local entry = redis.call('XRANGE', LOG, sequence .. '-0', sequence .. '-0')[1]
        if entry then
            local _, fields = record_of(entry)
            wanted = fields.event_id == event_id
        end
    end
    if wanted then
        local name = jid ~= '' and name_of(number_of(device, true), jid)
        local json, noticed_at = ARGV[at + 8], tonumber(ARGV[at + 9])
        if before then
            event_id, name, json, noticed_at = before[1], before[2], before[6], before[7]
        end
        local delivery =
            { event_id, name, tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]) or false, tonumber(ARGV[at + 6]), json, noticed_at }
        keep_delivery(id, sequence, delivery, ARGV[at + 7] == '1')
    end
end
for at = 6 + 10 * kept, #ARGV do
    local before = delivery_of(id, ARGV[at])
    end_delivery(id, ARGV[at], before and before[2])
end
return 'done'
