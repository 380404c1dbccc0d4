#!lua flags=allow-oom
-- tick: everything that a worker does between two looks at its queue, in one call.
--   settle   active -> completed | delayed | failed | cancelled | waiting | waiting_children, for each attempt that has
--            ended
--   renew    this worker's lease
--   sweep    active, its worker's lease lapsed -> waiting, or failed as poison; cancelled if that was asked for
--   promote  delayed and due -> waiting; part of a committed batch whose producer fell silent -> waiting
--   hand_out schedules that are due -> this worker, to fire them
--   retain   completed | failed | cancelled, over the count or the age that are kept -> nothing
--   claim    waiting -> active, lane by lane, oldest first, as far as pause and limits allow
--   count    what ended in this minute, for charts
-- KEYS     1 queue base
-- ARGV     1 worker  2 lease in ms  3 jobs wanted  4 stalls that fail a job  5 "1": also list what this worker holds
--          6 cap of the event stream  7 cap of the dead letters  8 number of marks
--          9 … the marks: job ids of suspects (they stalled before) that start now
--          then nine per outcome: kind, lane, entry, job id, body, a, b, started ms, attempts made
--            done     body result  a keep count  b keep age ms
--            retry    body error   a delay ms
--            fail     body error   a keep count  b keep age ms
--            cancel   body reason  a keep count  b keep age ms  (as asked for; see lua/cancel.lua)
--            release  body ""      a delay ms    b the counter to raise: i | n | ""
--            return   body ""      of a claim that never started: to the front of its lane, as it was
--            wait     body batch, fk   a children   b parts of the batch (its handler has staged children: see lib/spawn)
--            hold     body ""      a delay ms    b ""  (the whole queue starts nothing for as long)
--          The job id is "" if the job had no record when it was claimed: then the entry's number is.
--          A job that is to be cancelled ends so, however its attempt has ended.
-- RETURNS  {now ms, ms until something is due (-1: nothing), {positions from 0 of stale outcomes; or -1: this worker had
--           no lease, so nothing was settled, and it has to look at what it holds},
--           {lane, entry, envelope, ms since when it waited, …} claimed,
--           {entry, job id, envelope, attempts, stalls, interruptions, releases, children, cursor, …} of those that have
--           a record,
--           {lane, entry, "", ms, …} held, jobs taken back from lost workers, jobs promoted,
--           1 if the queue has a limit + 2 if it has had bound jobs, {ids of schedules that this worker is to fire},
--           how many of the jobs taken back were failed as poison}
-- RACES    another worker's tick, a client's remove: whoever takes a job from a worker acknowledges its entry and deletes
--          it, and XACK counts an entry once, so an outcome counts once. Sent again (its reply was lost): outcomes are
--          stale, and claims are found by the list of what is held.
-- @include lib/clock
-- @include lib/sound
-- @include lib/wake
-- @include lib/events
-- @include lib/record
-- @include lib/entry
-- @include lib/append
-- @include lib/enqueue
-- @include lib/batch
-- @include lib/spare
-- @include lib/turn
-- @include lib/lease
-- @include lib/moves
-- @include lib/cancels
-- @include lib/guard
-- @include lib/take_over
-- @include lib/spawn
-- @include lib/settle
-- @include lib/sweep
-- @include lib/promote
-- @include lib/schedules
-- @include lib/hand_out
-- @include lib/first_due
-- @include lib/limits
-- @include lib/claim
-- @include lib/minutes
local base, worker, lease_ms, want = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local max_stalls, held_too, event_cap, dead_cap = tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6], ARGV[7]
local marks = tonumber(ARGV[8])
local NOT_SETTLED = -1
numbers(lease_ms, want, max_stalls, marks)

local now = now_ms()
local meta = read_meta(base)
local turn = new_turn(base, now, event_cap, dead_cap, meta)

local joined = renew_lease(base, worker, now, lease_ms)
local stale, settled = { NOT_SETTLED }, 0
if not joined then
  stale, settled = settle(turn, ARGV, 9 + marks, worker)
end
for at = 9, 8 + marks do
  mark(turn, worker, ARGV[at])
end
audit(turn, meta.audit_at, lease_ms, joined) -- a worker that joins may do so because the leases were lost

local first, taken_back, promoted, due = first_due(base, turn.bound), 0, 0, {}
local is_due, first_bound = first and first <= now, false
if is_due then
  taken_back = sweep(turn, max_stalls)
  promoted = promote(turn)
  first_bound = take_over(turn, PROMOTE_JOBS)
  due = hand_out(turn)
end
if turn.bound then
  look_at_keys(turn)
  turn.opened = settle_keys(base, now)
end
local behind = retain(turn)

local may, next_at = 0, nil
if not meta.paused and want > 0 then
  may, next_at = allowed(turn, want, meta)
end
local claimed, known, count = claim(turn, worker, may)
note_starts(turn, count, may)
behind = behind or count < may and turn.spare > 0
local held = held_too and list_held(turn, worker, known) or {}
let_go(turn)
if turn.spare ~= (tonumber(meta.spare) or 0) then
  redis.call('HSET', base .. ':meta', 'spare', turn.spare)
end
count_minute(turn, meta.minute)
publish_all(turn)

-- One token wakes one worker; a tick that may leave work behind leaves a token for the next.
local full = may >= want and count >= want
if not meta.paused and full and (want > 0 or promoted > 0 or taken_back > 0 or turn.returned or turn.opened)
  or meta.max_active and settled > count then
  wake(base)
end

if is_due or turn.bound then
  first = first_due(base, turn.bound) -- all that was due has changed it
end
local soonest = math.min(first or math.huge, next_at or math.huge)
local next_ms = behind and 0 or soonest < math.huge and math.max(soonest - now, 0) or -1
local limited = ((meta.rate_max or meta.max_active or meta.hold_until) and 1 or 0) + ((turn.bound or first_bound) and 2 or 0)
return { now, next_ms, stale, claimed, known, held, taken_back, promoted, limited, due, turn.poisoned or 0 }
