#!lua
-- reschedule: delayed -> delayed until another time.
-- KEYS     1 queue base
-- ARGV     1 job id  2 when: "+MS" so many ms from now | "@MS" at that time  3 cap of the event stream
-- RETURNS  "rescheduled" | "unknown" | "parked" (it waits for another job's end, not for a time) |
--          the state that it is in, which is not delayed; then nothing was written
-- RACES    tick (promote): once it is due and promoted, this finds it waiting. Two calls: the later one counts.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/unique
-- @include lib/sound
local base, id, start, cap = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
sound(base, string.sub(start, 2))
local job = locate(base, id)
if not job then
  return 'unknown'
end
if job.state ~= 'delayed' then
  return job.state
end
if is_parked(base, id) then
  return 'parked'
end
local due = due_ms(start, now_ms())
redis.call('HSET', base .. ':job:' .. id, 'u', due)
redis.call('ZADD', base .. ':delayed', due, id)
publish(base, cap, 'rescheduled', { id })
-- Idle workers sleep until the earliest delayed job: tell one if that is sooner now.
if redis.call('ZRANGE', base .. ':delayed', 0, 0)[1] == id then
  wake_unless_paused(base)
end
return 'rescheduled'
