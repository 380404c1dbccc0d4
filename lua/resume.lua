#!lua flags=allow-oom
-- resume: paused queue -> running.
-- KEYS     1 queue base
-- ARGV     1 cap of the event stream
-- RETURNS  1, or 0 if it was not paused
-- RACES    tick: the wake token makes an idle worker look at once.
-- @include lib/events
-- @include lib/wake
-- @include lib/sound
local base, cap = KEYS[1], ARGV[1]
sound(base)
if redis.call('HDEL', base .. ':meta', 'paused') == 0 then
  return 0
end
publish(base, cap, 'resumed', { '' })
wake(base)
return 1
