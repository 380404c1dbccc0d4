#!lua flags=no-writes
-- flow: reads the tree of jobs below a job, each before its children.
-- KEYS     1 queue base
-- ARGV     1 job id  2 levels below it at most  3 children told of each job at most  4 jobs told at most
-- RETURNS  {depth (0: the job itself), its place among the children of the job above it (0), queue, id, state, name | "",
--           children that it has had, those that have not ended} …; one whose record is gone has the state in which it
--           ended, "removed" among them, or "unknown". A job of which too many are told has its last ones left out.
-- RACES    none: it only reads.
-- @include lib/record
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/job_name
-- @include lib/child
local base, id, depth, width, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local ENDED = { c = 'completed', f = 'failed', x = 'cancelled', r = 'removed' }

local reply, todo = {}, { { base, id, 0, 0, nil } }
while #todo > 0 and #reply < most do
  local job_base, job_id, level, place, ending = unpack(table.remove(todo), 1, 5)
  local job = locate(job_base, job_id)
  local state = job and job.state or ENDED[string.sub(ending or '', 1, 1)] or 'unknown'
  local record = job and job.record or {}
  local had = tonumber(record.fn) or 0
  local envelope = job and (job.parts and job.parts.d or record_envelope(job_base .. ':job:' .. job_id))
  local name = job_name(envelope or '')
  reply[#reply + 1] = { level, place, queue_of(job_base), job_id, state, name, had, tonumber(record.fo) or 0 }
  for at = level < depth and math.min(had, width) or 0, 1, -1 do
    local child, child_ending = unpack(redis.call('HMGET', job_base .. ':children:' .. job_id, at, 'e' .. at))
    if child then
      local _, child_id, child_base = named_child(job_base, child)
      todo[#todo + 1] = { child_base, child_id, level + 1, at, child_ending }
    end
  end
end
return reply
