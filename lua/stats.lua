#!lua flags=no-writes
-- stats: counts the queue's jobs by state, each from a size that the server keeps.
-- KEYS     1 queue base
-- ARGV     none
-- RETURNS  {waiting in lane 1, 2, 3, 4, active, delayed, completed, failed, dead letters, paused 0 | 1,
--           ms since the oldest waiting job came into lane 1, 2, 3, 4 (-1: none waits), workers alive, now ms, cancelled,
--           jobs that wait for their children}
-- RACES    none: it only reads.
-- @include lib/clock
-- @include lib/spare
-- @include lib/spare_count
-- @include lib/parked
local base, now = KEYS[1], now_ms()
local waiting, ages, active, parked = {}, {}, 0, parked_by_lane(base)
local some_spare = (tonumber(redis.call('HGET', base .. ':meta', 'spare')) or 0) > 0
for lane = 1, 4 do
  local lane_key = base .. ':lane:' .. lane
  local size, pending, last = redis.call('XLEN', lane_key), 0, '0-0'
  local groups = size > 0 and redis.pcall('XINFO', 'GROUPS', lane_key) or {}
  for _, group in ipairs(groups.err and {} or groups) do
    for at = 1, #group, 2 do
      if group[at] == 'pending' then
        pending = group[at + 1]
      elseif group[at] == 'last-delivered-id' then
        last = group[at + 1]
      end
    end
  end
  local spare = some_spare and spare_count(lane_key) or 0
  pending = pending - spare
  waiting[lane], ages[lane] = math.max(size - pending, 0), -1
  active = active + pending
  if waiting[lane] > 0 then
    local first = spare > 0 and redis.call('XPENDING', lane_key, 'w', '-', '+', 1, SPARE)[1]
    local from = first and first[1] or '(' .. last
    local oldest = redis.call('XRANGE', lane_key, from, '+', 'COUNT', 1)[1]
    for at = 1, oldest and #oldest[2] or 0, 2 do
      if oldest[2][at] == 't' then
        ages[lane] = math.max(now - (tonumber(oldest[2][at + 1]) or now), 0)
      end
    end
  end
  waiting[lane] = waiting[lane] + (tonumber(parked[lane]) or 0)
end
return {
  waiting[1], waiting[2], waiting[3], waiting[4], active,
  redis.call('ZCARD', base .. ':delayed'), redis.call('ZCARD', base .. ':completed'), redis.call('ZCARD', base .. ':failed'),
  redis.call('XLEN', base .. ':dead'), redis.call('HEXISTS', base .. ':meta', 'paused'),
  ages[1], ages[2], ages[3], ages[4],
  redis.call('ZCOUNT', base .. ':workers', now, '+inf'), now, redis.call('ZCARD', base .. ':cancelled'),
  redis.call('ZCARD', base .. ':waiting_children'),
}
