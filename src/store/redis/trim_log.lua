-- ARGV: before when, how many at the most.
local trimmed, upto = 0, nil
for _, entry in ipairs(redis.call('XRANGE', LOG, '-', '+', 'COUNT', ARGV[2])) do
    local sequence, fields = record_of(entry)
    if tonumber(fields.at) >= tonumber(ARGV[1]) then
        break
    end
    local name = fields.event_id ~= '' and known(fields.device, fields.jid)
    if name then
        redis.call('ZREM', base .. 'h:' .. name, fields.event_id)
    end
    trimmed, upto = trimmed + 1, sequence
end
if upto then
    redis.call('XTRIM', LOG, 'MINID', place(upto + 1))
    redis.call('HSET', META, 'trimmed', upto)
end
return trimmed
