#!lua
-- fire: a schedule's due slots -> jobs, one for each, named <schedule id>@<slot>; the schedule -> its next slot.
-- KEYS     1 queue base
-- ARGV     1 schedule id  2 revision and  3 next slot for which the caller computed all this
--          4 the next slot from here, "" if none follows  5 cap of the event stream
--          6 keep count and  7 keep age ms of a job that this cancels  8 slots missed
--          9 how many of these are named  10 … their names, then two per slot that runs: slot, start of its job
-- RETURNS  {jobs added, slots skipped, ms until somebody is to look again or -1}; {-1} the schedule is no longer where the
--          caller found it: nothing was written
-- RACES    fire, schedule, suspend, restart, unschedule: the first one changes the slot or the revision, which the others
--          then miss. Safe to call twice.
-- @include lib/clock
-- @include lib/sound
-- @include lib/wake
-- @include lib/events
-- @include lib/record
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/append
-- @include lib/enqueue
-- @include lib/schedules
-- @include lib/overlap
-- @include lib/turn
-- @include lib/moves
-- @include lib/cancels
-- @include lib/cancel_job
local base, id, rev, expected, next_slot, cap = KEYS[1], unpack(ARGV, 1, 5)
local keep_count, keep_age_ms, missed, named = unpack(ARGV, 6, 9)
local LOOK_AGAIN_MS, FIRST = 500, 10
sound(base, next_slot == '' and 0 or next_slot, keep_count, keep_age_ms, missed, named)
missed, named = tonumber(missed), tonumber(named)

local now, schedule = now_ms(), read_schedule(base, id)
if not schedule or schedule.paused or schedule.rev ~= rev or schedule.next ~= expected then
  return { -1 }
end

local left = schedule.limit == '' and math.huge or tonumber(schedule.limit) - tonumber(schedule.fired)
local overlap, last, waiting = schedule.overlap, schedule.last, schedule.waiting
local busy = overlap ~= 'allow' and unended(base, last)
local jobs, skipped, turn = {}, {}, new_turn(base, now, cap, nil, read_meta(base))

local function run(slot, start)
  last = id .. '@' .. slot
  local at = #jobs
  jobs[at + 1], jobs[at + 2], jobs[at + 3], jobs[at + 4] = schedule.lane, start_of(schedule, start), last, schedule.envelope
  left = left - 1
  busy = overlap ~= 'allow'
end

if waiting and not busy then
  run(waiting, '0')
  waiting = nil
end
for at = FIRST + named, #ARGV, 2 do
  local slot, start = ARGV[at], tonumber(ARGV[at + 1])
  start = start > now and '@' .. ARGV[at + 1] or '0'
  if left - (waiting and 1 or 0) <= 0 then
    break
  elseif overlap == 'cancel_previous' and at + 1 == #ARGV then
    if type(busy) == 'table' then
      cancel_job(turn, last, busy, 'its schedule fired again', keep_count, keep_age_ms)
    end
    run(slot, start)
  elseif overlap == 'cancel_previous' or busy and (overlap == 'skip' or waiting) then
    skipped[#skipped + 1] = id .. '@' .. slot
  elseif busy then
    waiting = slot
  else
    run(slot, start)
  end
end
if left - (waiting and 1 or 0) <= 0 then
  next_slot = ''
end

retain(turn)
let_go(turn)
publish_all(turn)
local added = 0
if #jobs > 0 then
  local reply = enqueue(base, cap, now, jobs, 1)
  added = #jobs / PER_JOB - (#reply - 1)
  for i = 2, #reply do
    if type(reply[i]) == 'table' then
      skipped[#skipped + 1] = jobs[(reply[i][1] - 1) * PER_JOB + 3] -- its unique key is held
    end
  end
end
publish(base, cap, 'missed', { unpack(ARGV, FIRST, FIRST - 1 + named) })
publish(base, cap, 'skipped', skipped)
local key = schedule_key(base, id)
redis.call(
  'HSET', key, 'next', next_slot, 'fired', tonumber(schedule.fired) + added,
  'missed', tonumber(schedule.missed) + missed, 'skipped', tonumber(schedule.skipped) + #skipped
)
if last then
  redis.call('HSET', key, 'last', last)
end
local look = look_at(next_slot)
if waiting then
  redis.call('HSET', key, 'waiting', waiting)
  look = math.min(look, now + LOOK_AGAIN_MS)
elseif schedule.waiting then
  redis.call('HDEL', key, 'waiting')
end
redis.call('ZADD', base .. ':schedules', look, id)
return { added, #skipped, look < PARKED and math.max(look - now, 0) or -1 }
