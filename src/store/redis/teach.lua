-- Makes known what was learnt of a device, if nothing else was learnt in between.
-- ARGV: device, the version that the lesson was made from or -1, record, what is left of a cool-down in us, the name of the device's
-- own lane or '' if it has none, the highest token that was seen, the clock.
local device, left, lane, now = ARGV[1], tonumber(ARGV[4]), ARGV[5], clock(ARGV[7])
local known = known_of(device, now)
if known[1] ~= tonumber(ARGV[2]) then
    return { 'changed', known }
end
local version = next_token(tonumber(ARGV[6]))
redis.call('HSET', RECORDS, device, ARGV[3])
redis.call('HSET', VERSIONS, device, whole(version) .. ' ' .. whole(now + left) .. ' ' .. whole(left))
if lane ~= '' then
    local bucket = bucket_of(lane, now)
    if left > 0 then
        -- What would be saved up while cooling down is not to be spent at once afterwards.
        bucket[1], bucket[2] = 0, now + left
    end
    keep_bucket(lane, bucket)
end
return { 'done', version }
