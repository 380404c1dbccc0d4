#!lua
-- retry: failed -> waiting in its own lane, its attempts counted from nothing.
-- KEYS     1 queue base
-- ARGV     1 job id  2 cap of the event stream
-- RETURNS  "waiting" | "unknown" | the state that it is in, which is not failed; then nothing was written
-- RACES    a second retry finds it waiting; retention may have removed it: unknown.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/entry
-- @include lib/locate
local base, id, cap = KEYS[1], ARGV[1], ARGV[2]
local job = locate(base, id)
if not job then
  return 'unknown'
end
if job.state ~= 'failed' then
  return job.state
end
local key, entry = base .. ':job:' .. id, next_number(base)
redis.call('XADD', base .. ':lane:' .. job.lane, entry, 'j', id, 't', now_ms())
redis.call('HSET', key, 's', 'q', 'e', entry, 'a', 0, 'k', 0)
redis.call('HDEL', key, 'f', 'b', 'g', 'q', 'm')
redis.call('ZREM', base .. ':failed', id)
if job.record.q then
  redis.call('XDEL', base .. ':dead', job.record.q)
end
publish(base, cap, 'added', { id })
if redis.call('HEXISTS', base .. ':meta', 'paused') == 0 then
  wake(base)
end
return 'waiting'
