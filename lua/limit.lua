#!lua flags=allow-oom
-- limit: a queue's limits -> others. They hold for all workers from the next tick on.
-- KEYS     1 queue base
-- ARGV     1 job starts per window: a number | "0" no limit | "" as it is  2 window in ms
--          3 jobs that run at once: a number | "0" no limit | "" as it is
-- RETURNS  1
-- RACES    tick: one that runs just before goes by the old limits. Safe to call twice.
-- @include lib/wake
-- @include lib/sound
local base, rate_max, rate_ms, max_active = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
sound(base, (rate_max == '' or rate_max == '0') and 0 or rate_ms, max_active == '' and 0 or max_active)
local meta_key = base .. ':meta'
if rate_max == '0' then
  redis.call('HDEL', meta_key, 'rate_max', 'rate_ms', 'rate_full')
elseif rate_max ~= '' then
  redis.call('HSET', meta_key, 'rate_max', rate_max, 'rate_ms', rate_ms)
end
if max_active == '0' then
  redis.call('HDEL', meta_key, 'max_active')
elseif max_active ~= '' then
  redis.call('HSET', meta_key, 'max_active', max_active)
end
if redis.call('HEXISTS', meta_key, 'paused') == 0 then
  wake(base)
end
return 1
