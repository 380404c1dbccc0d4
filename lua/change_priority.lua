#!lua
-- change_priority: waiting -> waiting at the end of another lane; delayed -> delayed, bound for another lane.
-- KEYS     1 queue base
-- ARGV     1 job id  2 lane  3 cap of the event stream
-- RETURNS  "changed" | "same" (it is there already: it keeps its place) | "unknown" | the state that forbids it
-- RACES    tick (claim): whichever runs first wins; a claimed job is active. Two calls: the later one counts.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/parking
-- @include lib/sound
local base, id, lane, cap = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
sound(base, lane)
local job = locate(base, id)
if not job then
  return 'unknown'
end
if job.state ~= 'waiting' and job.state ~= 'delayed' then
  return job.state
end
if job.lane == lane then
  return 'same'
end
local key = base .. ':job:' .. id
local its_key = job.record and job.record.ky
if its_key and job.state == 'delayed' then
  move_place(base, book_of(base, its_key), tonumber(job.lane), id, tonumber(lane))
  settle_keys(base, now_ms())
  wake_unless_paused(base)
elseif its_key then
  local now = now_ms()
  local since = job.parts and job.parts.t or job.record.kw or job.record.c
  leave(base, its_key, id)
  if job.entry then
    redis.call('XACK', base .. ':lane:' .. job.lane, 'w', job.entry)
    redis.call('XDEL', base .. ':lane:' .. job.lane, job.entry)
  end
  enter(base, now, its_key, id, lane, since, next_number(base))
  settle_keys(base, now)
  wake_unless_paused(base)
elseif job.state == 'waiting' then
  local entry, parts, now = next_number(base), job.parts, now_ms()
  if parts.d then
    entry = append(base, base .. ':lane:' .. lane, entry, 'j', id, 't', now, 'd', parts.d)
  else
    entry = append(base, base .. ':lane:' .. lane, entry, 'j', id, 't', now)
  end
  redis.call('XACK', base .. ':lane:' .. job.lane, 'w', job.entry) -- it may be spare
  redis.call('XDEL', base .. ':lane:' .. job.lane, job.entry)
  redis.call('HSETNX', key, 'c', parts.t or now)
  redis.call('HSET', key, 's', 'q', 'e', entry)
  wake_unless_paused(base)
end
redis.call('HSET', key, 'p', lane)
publish(base, cap, 'reprioritized', { id })
return 'changed'
