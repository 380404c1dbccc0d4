#!lua
-- schedule: nothing | a schedule -> that schedule as described; it keeps its next slot unless its timing is another.
-- KEYS     1 queue base
-- ARGV     1 schedule id  2 spec  3 digest of the timing  4 lane  5 envelope  6 overlap  7 limit or ""
--          8 anchor  9 next slot or "" if none follows (both "" in a first call: they need the server's time)
--          10 bonds of its jobs or ""
-- RETURNS  {now ms, "compute", anchor or ""} the timing is new: nothing was written, call again with anchor and next slot;
--          {now ms, "set" | "kept", field, value … of the schedule}
-- RACES    the same call of others: the first one sets the slot, the rest keep it. fire: the revision tells it that what it
--          computed no longer holds. Safe to call twice.
-- @include lib/clock
-- @include lib/wake
-- @include lib/schedules
-- @include lib/sound
local base, id, spec, timing, lane, envelope, overlap, limit = KEYS[1], unpack(ARGV, 1, 7)
local anchor, next_slot, bonds = ARGV[8], ARGV[9], ARGV[10]
sound(base, lane, limit == '' and 0 or limit, anchor == '' and 0 or anchor, next_slot == '' and 0 or next_slot)
local key, schedules_key, now = schedule_key(base, id), base .. ':schedules', now_ms()
local stored = read_schedule(base, id) or {}

local same = stored.timing == timing
if not same and anchor == '' then
  return { now, 'compute', stored.anchor or '' }
end
local changed = not same
if not same then
  if limit ~= '' and tonumber(stored.fired or 0) >= tonumber(limit) then
    next_slot = ''
  end
  redis.call('HSET', key, 'timing', timing, 'anchor', anchor, 'next', next_slot, 'limit', limit)
  if not stored.timing then
    redis.call('HSET', key, 'created', now, 'fired', 0, 'missed', 0, 'skipped', 0)
  end
  redis.call('ZADD', schedules_key, look_at(next_slot, stored.paused), id)
  wake(base) -- idle workers sleep until what they know to be due
else
  redis.call('ZADD', schedules_key, 'NX', look_at(stored.next, stored.paused), id)
end
for field, value in pairs({ spec = spec, lane = lane, envelope = envelope, overlap = overlap, bonds = bonds }) do
  if (stored[field] or '') ~= value then
    redis.call('HSET', key, field, value)
    changed = true
  end
end
if changed then
  redis.call('HSET', key, 'rev', redis.call('INCR', base .. ':id'))
end
return { now, changed and 'set' or 'kept', unpack(redis.call('HGETALL', key)) }
