local epoch, _, last = extent()
local function event_at(sequence)
    local entry = redis.call('XRANGE', LOG, place(sequence), place(sequence))[1]
    if entry then
        local _, fields = record_of(entry)
        return fields.event_id
    end
    return ''
end

local seen = event_at(seen_last)
if epoch == seen_epoch and seen ~= '' and seen_event ~= '' and seen ~= seen_event then
    return redis.error_reply('LOST the server has lost what was written last, and somebody has written since')
end
return { epoch, last, event_at(last) }
