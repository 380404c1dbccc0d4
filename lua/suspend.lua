#!lua flags=allow-oom
-- suspend: a schedule -> paused: nothing of it fires; a slot that waited for the last job's end is skipped.
-- KEYS     1 queue base
-- ARGV     1 schedule id
-- RETURNS  1; 0 if it was paused already; -1 if it is unknown
-- RACES    fire: whichever runs first wins; after this it finds the schedule paused. Safe to call twice.
-- @include lib/schedules
-- @include lib/sound
local base, id = KEYS[1], ARGV[1]
sound(base)
local key = schedule_key(base, id)
if redis.call('EXISTS', key) == 0 then
  return -1
end
if redis.call('HSETNX', key, 'paused', '1') == 0 then
  return 0
end
if redis.call('HDEL', key, 'waiting') == 1 then
  redis.call('HINCRBY', key, 'skipped', 1)
end
redis.call('ZADD', base .. ':schedules', PARKED, id)
return 1
