#!lua
-- add: nothing -> waiting | delayed | waiting_children.
-- KEYS     1 queue base
-- ARGV     1 producer nonce  2 call number  3 cap of the event stream
--          4 "1": all or none, so that one job whose unique key is held otherwise than it allows refuses the whole call
--          5 … four per job: lane, start, job id, envelope
-- RETURNS  as lib/enqueue; {-1} if a later call of this producer was seen;
--          {-4, jobs in the queue, its limit} if they don't fit: nothing was added;
--          {-5, position, the id of the job that holds the key, the key} if one is refused: nothing was added
-- RACES    the same call again (its reply was lost): the first answer is repeated, nothing is added.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/record
-- @include lib/append
-- @include lib/enqueue
-- @include lib/producer
-- @include lib/room
local base, nonce, number, cap, all_or_none = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'
local FIRST_JOB = 5

-- Calls `visit(position, what becomes of it, as judge says it …, its bonds)` for each job whose id is not known already.
local function each_new(jobs, visit)
  for at = FIRST_JOB, #jobs, PER_JOB do
    local id = jobs[at + 2]
    if id == '' or redis.call('EXISTS', base .. ':job:' .. id) == 0 then
      local _, bonds = bonds_of(jobs[at + 1])
      local how, there = 'free', nil
      if bonds then
        how, there = judge(base, bonds)
      end
      visit((at - FIRST_JOB) / PER_JOB + 1, how, there, bonds)
    end
  end
end

local function new_jobs(jobs)
  local count = 0
  each_new(jobs, function(_, how)
    count = count + ((how == 'free' or how == 'next') and 1 or 0)
  end)
  return count
end

local function refusal(jobs)
  local found = nil
  each_new(jobs, function(position, how, there, bonds)
    found = found or how == 'refused' and { -5, position, there, bonds.u.k } or nil
  end)
  return found
end

assert((#ARGV - FIRST_JOB + 1) % PER_JOB == 0, 'arguments are missing')
local reply = answered(base, nonce, number)
if not reply then
  local full = no_room(base, (#ARGV - FIRST_JOB + 1) / PER_JOB) and no_room(base, new_jobs(ARGV))
  local refused = full or all_or_none and refusal(ARGV)
  if refused then
    return refused
  end
  reply = enqueue(base, cap, now_ms(), ARGV, FIRST_JOB)
  remember(base, nonce, number, reply)
end
return reply
