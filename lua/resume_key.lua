#!lua flags=allow-oom
-- resume_key: a paused key -> its jobs start again, as its limits allow.
-- KEYS     1 queue base
-- ARGV     1 key
-- RETURNS  1, or 0 if it was not paused
-- RACES    tick: the wake token makes an idle worker look at once.
-- @include lib/sound
-- @include lib/clock
-- @include lib/wake
-- @include lib/parking
-- @include lib/key_change
local base, key = KEYS[1], ARGV[1]
sound(base)
if redis.call('HDEL', base .. ':key:' .. key, 'paused') == 0 then
  return 0
end
key_changed(base, now_ms(), key)
return 1
