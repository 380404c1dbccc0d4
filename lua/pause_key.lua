#!lua flags=allow-oom
-- pause_key: a key's jobs start -> they wait, those that stand in a lane too; running ones go on.
-- KEYS     1 queue base
-- ARGV     1 key
-- RETURNS  1, or 0 if it was paused already
-- RACES    tick: jobs claimed before go on.
-- @include lib/sound
-- @include lib/clock
-- @include lib/wake
-- @include lib/parking
-- @include lib/key_change
local base, key = KEYS[1], ARGV[1]
sound(base)
if redis.call('HSETNX', base .. ':key:' .. key, 'paused', '1') == 0 then
  return 0
end
key_changed(base, now_ms(), key)
return 1
