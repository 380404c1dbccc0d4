#!lua flags=allow-oom
-- restart: a paused schedule -> runs again, from the slot that is next by then.
-- KEYS     1 queue base
-- ARGV     1 schedule id  2 revision for which the slot was computed  3 next slot, "" if none follows
-- RETURNS  1; 0 if it was not paused; -1 if it is unknown; -2 if it was changed meanwhile: nothing was written, read it again
-- RACES    schedule: the revision tells that the slot no longer holds. Safe to call twice.
-- @include lib/wake
-- @include lib/schedules
-- @include lib/sound
local base, id, rev, next_slot = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
sound(base)
local key, schedule = schedule_key(base, id), read_schedule(base, id)
if not schedule then
  return -1
end
if not schedule.paused then
  return 0
end
if schedule.rev ~= rev then
  return -2
end
redis.call('HDEL', key, 'paused')
if schedule.next == '' then
  next_slot = '' -- it has ended, by its limit perhaps
end
redis.call('HSET', key, 'next', next_slot, 'rev', redis.call('INCR', base .. ':id'))
redis.call('ZADD', base .. ':schedules', look_at(next_slot), id)
wake(base)
return 1
