#!lua
-- promote: delayed -> waiting, before it is due.
-- KEYS     1 queue base
-- ARGV     1 job id  2 cap of the event stream
-- RETURNS  "promoted" | "unknown" | "parked" (it waits for another job's end, not for a time) |
--          the state that it is in, which is not delayed; then nothing was written
-- RACES    tick (promote): whichever runs first wins; the other finds it waiting. Two calls: one says "promoted".
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/unique
-- @include lib/append
-- @include lib/lineup
-- @include lib/sound
local base, id, cap = KEYS[1], ARGV[1], ARGV[2]
sound(base)
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
line_up(base, id, job.lane, now_ms())
redis.call('HDEL', base .. ':job:' .. id, 'u')
redis.call('ZREM', base .. ':delayed', id)
publish(base, cap, 'promoted', { id })
wake_unless_paused(base)
return 'promoted'
