-- For every device that has something: its name, the soonest deadline, from when on a subject may be rechecked.
local function soonest(set)
    return tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2] or nil)
end

local agenda, devices = {}, redis.call('HGETALL', NAMES)
for at = 1, #devices, 2 do
    local number = devices[at]
    local due = soonest(base .. 'due:' .. number)
    local recheck = soonest(base .. 'wait:' .. number)
    if redis.call('ZCARD', base .. 'ready:' .. number) > 0 then
        recheck = 0
    end
    if due or recheck then
        agenda[#agenda + 1] = { devices[at + 1], due or false, recheck or false }
    end
end
return agenda
