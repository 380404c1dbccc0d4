#!lua flags=no-writes
-- workers: tells who serves the queue, the longest lease first: each one's lease, what it holds, and since when.
-- KEYS     1 queue base
-- ARGV     1 workers at most  2 jobs told of each one at most
-- RETURNS  {now ms, workers in all, {worker, end of its lease ms, jobs held in lane 1, 2, 3, 4,
--           {{job id, lane, ms since it was claimed, its name | ""} …}} …}; no names any more after some megabytes
-- RACES    none: it only reads. A worker whose lease has lapsed is told until a tick has swept it.
-- @include lib/clock
-- @include lib/record
-- @include lib/entry
-- @include lib/job_name
local base, most, jobs_each = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local BYTES = 4194304
local bytes = 0

local function name_of(entry_parts, id)
  if bytes > BYTES then
    return ''
  end
  local envelope = entry_parts.d or record_envelope(base .. ':job:' .. id) or ''
  bytes = bytes + #envelope
  return job_name(envelope)
end

local function jobs_in(lane, worker, count)
  local jobs = {}
  local pending = redis.call('XPENDING', base .. ':lane:' .. lane, 'w', '-', '+', count, worker)
  for _, item in ipairs(pending) do
    local parts = read_entry(base .. ':lane:' .. lane, item[1]) or {}
    local id = parts.j or string.match(item[1], '^%d+')
    jobs[#jobs + 1] = { id, lane, item[3], name_of(parts, id) }
  end
  return jobs
end

local held = {}
for lane = 1, 4 do
  held[lane] = {}
  local summary = redis.pcall('XPENDING', base .. ':lane:' .. lane, 'w')
  for _, consumer in ipairs(not summary.err and summary[4] or {}) do
    held[lane][consumer[1]] = tonumber(consumer[2])
  end
end

local workers_key = base .. ':workers'
local reply = { now_ms(), redis.call('ZCARD', workers_key) }
local leases = redis.call('ZREVRANGE', workers_key, 0, most - 1, 'WITHSCORES')
for at = 1, #leases, 2 do
  local worker, jobs = leases[at], {}
  local told = { worker, tonumber(leases[at + 1]) }
  for lane = 1, 4 do
    local count = held[lane][worker] or 0
    told[#told + 1] = count
    local room = math.min(count, jobs_each - #jobs)
    for _, job in ipairs(room > 0 and jobs_in(lane, worker, room) or {}) do
      jobs[#jobs + 1] = job
    end
  end
  told[#told + 1] = jobs
  reply[#reply + 1] = told
end
return reply
