-- A write behind a place in the log: who waits for it to be replicated waits for all before it. It says which place: where the
-- server that had it is replaced by one that has it too, everything up to there is still so.
-- ARGV: the epoch, the place, and which event stands there, '' if it is none or nobody knows.
local epoch, _, last = extent()
local entry = redis.call('XRANGE', LOG, place(ARGV[2]), place(ARGV[2]))[1]
local _, fields = record_of(entry or { '0', {} })
local is_another = ARGV[3] ~= '' and fields.event_id and fields.event_id ~= ARGV[3]
if epoch ~= ARGV[1] or last < tonumber(ARGV[2]) or is_another then
    return 0
end
redis.call('SET', base .. 'beat', epoch .. '.' .. last)
return last
