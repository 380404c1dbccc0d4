-- @include lib/read_hash
-- A schedule's hash. Fields: spec what its slots are computed from, which only the workers read; timing a digest of what
-- fixes them; anchor; next its next slot ("" if none follows); rev changes with everything that bears on a firing;
-- lane, envelope and bonds of its jobs; overlap allow | skip | queue | cancel_previous; limit firings in all ("" none); fired,
-- missed, skipped how many; last job id; waiting the slot that waits for the last job's end; paused; created.
-- Its score in `schedules` is when a worker is to look at it. Times are milliseconds.
local PARKED = 9000000000000000

local function schedule_key(base, id)
  return base .. ':schedule:' .. id
end

local function read_schedule(base, id)
  return read_hash(schedule_key(base, id))
end

-- When a worker is to look at it: at its next slot, unless there is none or it is paused.
local function look_at(next_slot, paused)
  return (paused or next_slot == '') and PARKED or tonumber(next_slot)
end

-- The start of one of its jobs, with their bonds (see lib/enqueue).
local function start_of(schedule, start)
  return (schedule.bonds or '') == '' and start or start .. '|' .. schedule.bonds
end
