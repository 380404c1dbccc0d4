#!lua
-- commit: a staged batch -> waiting | delayed | waiting_children, whole, whatever happens from the first call on.
-- KEYS     1 queue base
-- ARGV     1 producer nonce  2 call number  3 cap of the event stream  4 batch  5 its parts, or "" after the first call
-- RETURNS  {1 if more is left (call again) | 0, then as lib/enqueue for the jobs of this part};
--          {-1} a later call of this producer was seen; {-2} the batch is not there, nothing was added;
--          {-3} a part is missing, nothing was added;
--          {-4, jobs in the queue, its limit} they don't fit, nothing was added and the batch is gone
-- RACES    tick: takes over a batch whose producer has been silent for ten seconds. The same call again repeats its answer.
-- @include lib/clock
-- @include lib/sound
-- @include lib/wake
-- @include lib/events
-- @include lib/record
-- @include lib/append
-- @include lib/enqueue
-- @include lib/producer
-- @include lib/batch
-- @include lib/room
local base, nonce, number, cap, batch, parts = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
sound(base)
local reply = answered(base, nonce, number)
if reply then
  return reply
end
local batch_key, count_key = base .. ':batch:' .. batch, base .. ':batch:' .. batch .. ':parts'
if redis.call('EXISTS', batch_key) == 0 then
  return { -2 }
end
if parts ~= '' then
  if redis.call('GET', count_key) ~= parts then
    return { -3 }
  end
  local full = no_room(base, redis.call('LLEN', batch_key) / PER_JOB)
  if full then
    redis.call('UNLINK', batch_key, count_key)
    return full
  end
  redis.call('DEL', count_key)
  redis.call('PERSIST', batch_key)
end
local moved, more = move_part(base, cap, now_ms(), batch, PART, PATIENCE_MS)
reply = { more and 1 or 0, unpack(moved) }
remember(base, nonce, number, reply)
return reply
