#!lua
-- retry: failed | cancelled -> waiting in its own lane, or waiting_children, its attempts counted from nothing.
-- KEYS     1 queue base
-- ARGV     1 job id  2 cap of the event stream
-- RETURNS  "retried" | "unknown" | the state that it is in, which is neither | {"held", the id of the job that holds its
--          unique key by now, the key}; then nothing was written
-- RACES    a second retry finds it waiting: one of two says "retried". Retention may have removed it: unknown.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/append
-- @include lib/lineup
-- @include lib/revive
-- @include lib/sound
local base, id, cap = KEYS[1], ARGV[1], ARGV[2]
sound(base)
local job = locate(base, id)
if not job then
  return 'unknown'
end
if job.state ~= 'failed' and job.state ~= 'cancelled' then
  return job.state
end
local now = now_ms()
local forbidden = is_bound(base) and rebind(base, now, cap, id)
if forbidden then
  return forbidden
end
if revive(base, now, cap, id, job.record, job.state) then
  publish(base, cap, 'added', { id })
  wake_unless_paused(base)
end
return 'retried'
