#!lua flags=allow-oom
-- remove: waiting | delayed | waiting_children | completed | failed | cancelled -> nothing; active too, if forced.
-- KEYS     1 queue base
-- ARGV     1 job id  2 "1": even while it runs; its entry is taken from its worker, whose outcome is then stale
--          3 cap of the event stream
-- RETURNS  "removed" | "unknown" | "active" (a worker holds it: nothing was written)
-- RACES    tick (claim): whichever runs first wins; a claimed job is active and stays, unless forced. Tick (settle): the
--          job has ended, or its outcome finds nothing. Tick (sweep): the job waits again, or there is nothing to sweep.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/take_out
-- @include lib/sound
local base, id, force, cap = KEYS[1], ARGV[1], ARGV[2] == '1', ARGV[3]
sound(base)
local job = locate(base, id)
if not job then
  return 'unknown'
end
if job.state == 'active' and not force then
  return 'active'
end
take_out(base, now_ms(), cap, id, job)
if job.state == 'active' then
  wake_unless_paused(base) -- a limit of jobs that run at once has room again
end
return 'removed'
