#!lua flags=allow-oom
-- remove: waiting | delayed | completed | failed | cancelled -> nothing.
-- KEYS     1 queue base
-- ARGV     1 job id  2 cap of the event stream
-- RETURNS  "removed" | "unknown" | "active" (a worker holds it: nothing was written)
-- RACES    tick (claim): whichever runs first wins; a claimed job is active and stays.
-- @include lib/events
-- @include lib/entry
-- @include lib/locate
local base, id, cap = KEYS[1], ARGV[1], ARGV[2]
local job = locate(base, id)
if not job then
  return 'unknown'
end
if job.state == 'active' then
  return 'active'
end
if job.state == 'waiting' then
  redis.call('XDEL', base .. ':lane:' .. job.lane, job.entry)
else
  redis.call('ZREM', base .. ':' .. job.state, id)
end
redis.call('UNLINK', base .. ':job:' .. id, base .. ':log:' .. id)
publish(base, cap, 'removed', { id })
return 'removed'
