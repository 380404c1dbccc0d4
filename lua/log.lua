#!lua
-- log: an active job's log -> one line longer.
-- KEYS     1 queue base
-- ARGV     1 lane  2 entry  3 job id  4 line  5 lines that are kept  6 cap of the event stream
-- RETURNS  1, or 0 if the entry is no longer pending: the lease moved on, nothing was written
-- RACES    as progress.
-- @include lib/events
-- @include lib/entry
local base, lane, entry, id, line = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local lines_cap, event_cap = tonumber(ARGV[5]), ARGV[6]
local lane_key, job_key, log_key = base .. ':lane:' .. lane, base .. ':job:' .. id, base .. ':log:' .. id
local pending = redis.pcall('XPENDING', lane_key, 'w', entry, entry, 1)
if pending.err or #pending == 0 then
  return 0
end
if redis.call('EXISTS', job_key) == 0 then
  local parts = read_entry(lane_key, entry)
  if not parts then
    return 0
  end
  redis.call('HSET', job_key, 's', 'q', 'p', lane, 'e', entry, 'c', parts.t)
end
redis.call('RPUSH', log_key, line)
redis.call('LTRIM', log_key, -lines_cap, -1)
redis.call('HINCRBY', job_key, 'l', 1)
-- Only while somebody follows the log: a chatty job must not push other events out of the capped stream.
if redis.call('EXISTS', base .. ':follow:' .. id) == 1 then
  publish(base, event_cap, 'log', { id })
end
return 1
