#!lua
-- progress: an active job -> the same, further on.
-- KEYS     1 queue base
-- ARGV     1 lane  2 entry  3 job id  4 progress (encoded)  5 cap of the event stream
-- RETURNS  1, or 0 if the entry is no longer pending: the lease moved on, nothing was written
-- RACES    tick (sweep, settle): after either, the entry is gone and this writes nothing.
-- @include lib/events
-- @include lib/entry
-- @include lib/report
local base, lane, entry, id, value, cap = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
assert(cap, 'arguments are missing')
local lane_key, job_key = base .. ':lane:' .. lane, base .. ':job:' .. id
if not report_to_record(lane_key, job_key, lane, entry) then
  return 0
end
redis.call('HSET', job_key, 'g', value)
publish(base, cap, 'progress', { id })
return 1
