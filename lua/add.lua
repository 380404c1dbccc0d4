#!lua
-- add: nothing -> waiting | delayed.
-- KEYS     1 queue base
-- ARGV     1 producer nonce  2 call number  3 cap of the event stream  4 … four per job: lane, start, job id, envelope
-- RETURNS  as lib/enqueue; {-1} if a later call of this producer was seen;
--          {-4, jobs in the queue, its limit} if they don't fit: nothing was added
-- RACES    the same call again (its reply was lost): the first answer is repeated, nothing is added.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/record
-- @include lib/append
-- @include lib/enqueue
-- @include lib/producer
-- @include lib/room
local base, nonce, number, cap = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local FIRST_JOB = 4

-- Jobs that would be new: an id that is known adds nothing.
local function new_jobs(jobs)
  local count = 0
  for at = FIRST_JOB, #jobs, PER_JOB do
    local id = jobs[at + 2]
    if id == '' or redis.call('EXISTS', base .. ':job:' .. id) == 0 then
      count = count + 1
    end
  end
  return count
end

local reply = answered(base, nonce, number)
if not reply then
  local full = no_room(base, (#ARGV - FIRST_JOB + 1) / PER_JOB) and no_room(base, new_jobs(ARGV))
  if full then
    return full
  end
  reply = enqueue(base, cap, now_ms(), ARGV, FIRST_JOB)
  remember(base, nonce, number, reply)
end
return reply
