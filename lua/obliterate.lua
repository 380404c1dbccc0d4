#!lua flags=allow-oom
-- obliterate: a queue -> nothing but its counter (ids are never given out twice) and the event that says so.
-- KEYS     1 queue base
-- ARGV     1 "1": even while jobs run; their outcomes are then stale  2 how many jobs at most in this call
--          3 cap of the event stream
-- RETURNS  {"active", how many run}: nothing was written | {"more", jobs that went in this call} | {"done", the same}
-- RACES    tick: the first call pauses the queue, so nothing starts from there on until all is gone. A worker that was
--          at it signs in again with its next tick. Safe to call again: it goes on where it was left.
-- @include lib/clock
-- @include lib/events
-- @include lib/entry
-- @include lib/spare
-- @include lib/spare_count
-- @include lib/lane
-- @include lib/discard
-- @include lib/sound
local base, force, limit, cap = KEYS[1], ARGV[1] == '1', tonumber(ARGV[2]), ARGV[3]
sound(base, ARGV[2])
local active, now = 0, now_ms()
for lane = 1, 4 do
  local pending = redis.pcall('XPENDING', base .. ':lane:' .. lane, 'w')
  active = active + (pending.err and 0 or pending[1]) - spare_count(base .. ':lane:' .. lane)
end
if active > 0 and not force then
  return { 'active', active }
end
redis.call('HSET', base .. ':meta', 'paused', '1')
-- Parents that wait go first, or their children's ends would start them.
local parents = redis.call('ZRANGE', base .. ':waiting_children', 0, limit - 1)
in_thousands('ZREM', base .. ':waiting_children', parents)
forget(base, now, cap, parents)
local ids = {}
collect_parked(base, now, limit, 0, ids)
forget(base, now, cap, ids)
local gone = #parents + #ids
if parked_jobs(base) > 0 then
  return { 'more', gone }
end
for lane = 1, 4 do
  local lane_key, entries = base .. ':lane:' .. lane, {}
  ids = {}
  each_entry(lane_key, '-', '+', false, function(entry, parts)
    if gone >= limit then
      return false
    end
    gone = gone + 1
    entries[#entries + 1] = entry
    ids[#ids + 1] = parts.j or string.match(entry, '^%d+')
    return true
  end)
  in_thousands('XDEL', lane_key, entries)
  forget(base, now, cap, ids)
end
for _, set in ipairs({ 'delayed', 'completed', 'failed', 'cancelled' }) do
  if gone < limit then
    ids = redis.call('ZRANGE', base .. ':' .. set, 0, limit - gone - 1)
    in_thousands('ZREM', base .. ':' .. set, ids)
    forget(base, now, cap, ids)
    gone = gone + #ids
  end
end
if gone >= limit then
  return { 'more', gone }
end
for _, worker in ipairs(redis.call('ZRANGE', base .. ':workers', 0, -1)) do
  redis.call('UNLINK', base .. ':cancels:' .. worker, base .. ':control:' .. worker)
end
for _, batch in ipairs(redis.call('ZRANGE', base .. ':batches', 0, -1)) do
  redis.call('UNLINK', base .. ':batch:' .. batch, base .. ':batch:' .. batch .. ':parts')
end
for _, schedule in ipairs(redis.call('ZRANGE', base .. ':schedules', 0, -1)) do
  redis.call('UNLINK', base .. ':schedule:' .. schedule)
end
for _, key in ipairs(redis.call('ZRANGE', base .. ':keys', 0, -1)) do
  redis.call('UNLINK', base .. ':key:' .. key, base .. ':places:' .. key, base .. ':key_starts:' .. key)
  for lane = 1, 4 do
    redis.call('UNLINK', parking_key(base, lane, key)) -- jobs that have gone may have left something there
  end
end
for _, rest in ipairs({ 'lane:1', 'lane:2', 'lane:3', 'lane:4', 'batches', 'schedules', 'dead', 'events', 'meta', 'starts',
  'workers', 'wake', 'minutes', 'keys', 'key_looks', 'turns:1', 'turns:2', 'turns:3', 'turns:4' }) do
  redis.call('UNLINK', base .. ':' .. rest)
end
publish(base, cap, 'obliterated', { '' })
return { 'done', gone }
