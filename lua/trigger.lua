#!lua
-- trigger: a schedule -> one job of it now, beside its slots.
-- KEYS     1 queue base
-- ARGV     1 schedule id  2 nonce of this call  3 cap of the event stream
-- RETURNS  {the ms of the job, whose id is <schedule id>@<ms>}; {0} the schedule is unknown;
--          {-1, the id of the job that holds its unique key, "known" | "replaced" | "refused", the key}: not added
-- RACES    the same call again (its reply was lost): the first answer is repeated, nothing is added.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/record
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/append
-- @include lib/enqueue
-- @include lib/producer
-- @include lib/schedules
-- @include lib/overlap
-- @include lib/sound
local base, id, nonce, cap = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
sound(base)
local reply = answered(base, nonce, 1)
if reply then
  return reply
end
local schedule = read_schedule(base, id)
if not schedule then
  return { 0 }
end
local now = now_ms()
local at, job_id = now, nil
repeat
  job_id = id .. '@' .. string.format('%.0f', at)
  at = at + 1
until redis.call('EXISTS', base .. ':job:' .. job_id) == 0
local instead = enqueue(base, cap, now, { schedule.lane, start_of(schedule, '0'), job_id, schedule.envelope }, 1)[2]
if not instead and not unended(base, schedule.last) then
  redis.call('HSET', schedule_key(base, id), 'last', job_id)
end
reply = instead and { -1, instead[2], instead[3], instead[4] } or { at - 1 }
remember(base, nonce, 1, reply)
return reply
