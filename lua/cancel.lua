#!lua flags=allow-oom
-- cancel: waiting | delayed | waiting_children -> cancelled; active -> asks its worker to interrupt it, and it then ends
--          as cancelled.
-- KEYS     1 queue base
-- ARGV     1 job id  2 reason  3 keep count  4 keep age ms  5 cap of the event stream
-- RETURNS  "cancelled" | "asked": it is active, and ends as cancelled whatever it does from here on | "unknown" | "already"
--          | "completed" | "failed": it has ended so. Of the last four nothing was written
-- RACES    tick (claim): a job that was claimed first is asked. Tick (settle): whichever runs first wins; the other finds
--          the job ended, or its outcome is that of a cancelled one. Tick (sweep): a lost worker's job ends as cancelled.
--          Safe to call twice.
-- @include lib/clock
-- @include lib/sound
-- @include lib/events
-- @include lib/record
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/turn
-- @include lib/moves
-- @include lib/cancels
-- @include lib/cancel_job
-- @include lib/overlap
local base, id, reason, keep_count, keep_age_ms, cap = KEYS[1], unpack(ARGV, 1, 5)
sound(base, keep_count, keep_age_ms)
local job = locate(base, id)
if not job then
  return 'unknown'
end
if ENDED[job.state] then
  return job.state == 'cancelled' and 'already' or job.state
end
local turn = new_turn(base, now_ms(), cap, nil, read_meta(base))
local done = cancel_job(turn, id, job, reason, keep_count, keep_age_ms)
retain(turn)
let_go(turn)
publish_all(turn)
return done
