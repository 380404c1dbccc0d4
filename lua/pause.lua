#!lua flags=allow-oom
-- pause: running queue -> paused: nothing is claimed; jobs that come due wait in their lanes.
-- KEYS     1 queue base
-- ARGV     1 cap of the event stream
-- RETURNS  1, or 0 if it was paused already
-- RACES    tick: jobs claimed before go on.
-- @include lib/events
-- @include lib/sound
local base, cap = KEYS[1], ARGV[1]
sound(base)
if redis.call('HSETNX', base .. ':meta', 'paused', '1') == 0 then
  return 0
end
redis.call('DEL', base .. ':wake')
publish(base, cap, 'paused', { '' })
return 1
