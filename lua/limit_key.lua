#!lua flags=allow-oom
-- limit_key: the limits of all keys, or of one -> others. They hold for all workers from the next tick on.
-- KEYS     1 queue base
-- ARGV     1 key | "" for all keys that have none of their own  2 job starts per window: a number | "0" no limit of its own
--          | "" as it is  3 window in ms  4 jobs that run at once: the same  5 weight: the same
-- RETURNS  1
-- RACES    tick: one that runs just before goes by the old limits; jobs that stand in a lane by them step back when they are
--          claimed. Safe to call twice.
-- @include lib/sound
-- @include lib/clock
-- @include lib/wake
-- @include lib/parking
-- @include lib/key_change
local base, key, rate_max, rate_ms, most, weight = KEYS[1], unpack(ARGV, 1, 5)
sound(base, (rate_max == '' or rate_max == '0') and 0 or rate_ms, most == '' and 0 or most, weight == '' and 0 or weight)
local settings, prefix = base .. ':meta', 'key_'
if key ~= '' then
  settings, prefix = base .. ':key:' .. key, ''
end

local function set(field, value, also, also_value)
  if value == '0' then
    redis.call('HDEL', settings, prefix .. field, prefix .. (also or field))
  elseif value ~= '' then
    redis.call('HSET', settings, prefix .. field, value, prefix .. (also or field), also_value or value)
  end
end

set('rate_max', rate_max, 'rate_ms', rate_ms)
set('active', most)
set('weight', weight)
key_changed(base, now_ms(), key)
return 1
