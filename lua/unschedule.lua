#!lua flags=allow-oom
-- unschedule: a schedule -> nothing. Jobs that it has added stay.
-- KEYS     1 queue base
-- ARGV     1 schedule id
-- RETURNS  1, or 0 if it is unknown
-- RACES    fire: whichever runs first wins; after this it finds nothing. Safe to call twice.
-- @include lib/schedules
-- @include lib/sound
local base, id = KEYS[1], ARGV[1]
sound(base)
redis.call('ZREM', base .. ':schedules', id)
return redis.call('UNLINK', schedule_key(base, id))
