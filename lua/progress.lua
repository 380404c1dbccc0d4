#!lua
-- progress: an active job -> the same, further on.
-- KEYS     1 queue base
-- ARGV     1 lane  2 entry  3 job id  4 progress (encoded)  5 cap of the event stream
-- RETURNS  1, or 0 if the entry is no longer pending: the lease moved on, nothing was written
-- RACES    tick (sweep, settle): after either, the entry is gone and this writes nothing.
-- @include lib/events
-- @include lib/entry
local base, lane, entry, id, value, cap = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local lane_key, job_key = base .. ':lane:' .. lane, base .. ':job:' .. id
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
redis.call('HSET', job_key, 'g', value)
publish(base, cap, 'progress', { id })
return 1
