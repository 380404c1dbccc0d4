#!lua
-- log: an active job's log -> one line longer.
-- KEYS     1 queue base
-- ARGV     1 lane  2 entry  3 job id  4 line  5 lines that are kept  6 cap of the event stream
-- RETURNS  1, or 0 if the entry is no longer pending: the lease moved on, nothing was written
-- RACES    as progress.
-- @include lib/events
-- @include lib/entry
-- @include lib/report
-- @include lib/sound
local base, lane, entry, id, line = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local lines_cap, event_cap = tonumber(ARGV[5]), ARGV[6]
numbers(lines_cap)
assert(lines_cap > 0, 'a log keeps a line at least')
redis.call('LLEN', base .. ':log:' .. id)
redis.call('HEXISTS', base .. ':meta', 'logged')
local lane_key, job_key, log_key = base .. ':lane:' .. lane, base .. ':job:' .. id, base .. ':log:' .. id
if not report_to_record(lane_key, job_key, lane, entry) then
  return 0
end
redis.call('HSET', base .. ':meta', 'logged', '1')
redis.call('RPUSH', log_key, line)
redis.call('LTRIM', log_key, -lines_cap, -1)
redis.call('HINCRBY', job_key, 'l', 1)
-- Only while somebody follows the log: a chatty job must not push other events out of the capped stream.
if redis.call('EXISTS', base .. ':follow:' .. id) == 1 then
  publish(base, event_cap, 'log', { id })
end
return 1
