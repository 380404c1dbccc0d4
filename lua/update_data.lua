#!lua
-- update_data: waiting | delayed | failed -> the same, with another envelope. A waiting job whose entry holds its
--              envelope moves to the end of its lane, since an entry can't be changed; any other keeps its place.
-- KEYS     1 queue base
-- ARGV     1 job id  2 the envelope that the caller has read  3 the new one  4 cap of the event stream
-- RETURNS  "updated" | "changed" (its envelope is another one by now: read it again) | "unknown" | the state that
--          forbids it
-- RACES    tick (claim): whichever runs first wins; a claimed job is active. Another update: the slower one is told
--          "changed", so neither is lost.
-- @include lib/clock
-- @include lib/events
-- @include lib/record
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/append
-- @include lib/sound
local base, id, before, envelope, cap = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
sound(base)
local job = locate(base, id)
if not job then
  return 'unknown'
end
if job.state ~= 'waiting' and job.state ~= 'delayed' and job.state ~= 'failed' then
  return job.state
end
local key, parts = base .. ':job:' .. id, job.parts or {}
if (parts.d or record_envelope(key) or '') ~= before then
  return 'changed'
end
if parts.d then
  local now = now_ms()
  local entry = append(base, base .. ':lane:' .. job.lane, next_number(base), 'j', id, 't', now, 'd', envelope)
  redis.call('XACK', base .. ':lane:' .. job.lane, 'w', job.entry) -- it may be spare
  redis.call('XDEL', base .. ':lane:' .. job.lane, job.entry)
  redis.call('HSETNX', key, 'c', parts.t or now)
  redis.call('HSET', key, 's', 'q', 'p', job.lane, 'e', entry)
else
  local fields = {}
  add_envelope(fields, envelope)
  redis.call('HDEL', key, unpack(PIECE_FIELDS))
  redis.call('HSET', key, unpack(fields))
end
publish(base, cap, 'updated', { id })
return 'updated'
