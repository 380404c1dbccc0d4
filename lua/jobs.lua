#!lua flags=no-writes
-- jobs: reads jobs of one state, in order: waiting and active ones lane by lane, the oldest entry first, and then those that
--       are parked, key by key; delayed ones by when they are due, ended ones by when they ended.
-- KEYS     1 queue base
-- ARGV     1 state  2 "" | the cursor of the reply before  3 jobs to skip  4 jobs wanted  5 "1": in reverse order
--          6 "" | a job name, encoded
-- RETURNS  {cursor ("": that was all), jobs skipped, {job id, then as lib/describe} …}; ends early after many jobs or
--          megabytes
-- RACES    none: it only reads. Jobs that move between two pages may be missing or told twice.
-- @include lib/clock
-- @include lib/record
-- @include lib/entry
-- @include lib/spare
-- @include lib/spare_count
-- @include lib/locate
-- @include lib/match
-- @include lib/lane
-- @include lib/describe
-- @include lib/each_parked
local base, state, cursor, skip, count = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local reversed, name = ARGV[5] == '1', ARGV[6]
local LOOK, BYTES = 1000, 2097152
local looked, bytes, skipped = 0, 0, 0
local found = {}

local function full()
  return #found >= count or looked >= LOOK or bytes > BYTES
end

local function take(id, lane, parts, idle)
  looked = looked + 1
  if skipped < skip then
    skipped = skipped + 1
    return
  end
  if name ~= '' and not has_name(parts and parts.d or record_envelope(base .. ':job:' .. id), name) then
    return
  end
  local record = read_record(base, id)
  local job = describe(base, id, state, lane, parts, record, idle)
  bytes = bytes + (parts and parts.d and 0 or #job[3]) + #(record and record.r or '')
  table.insert(job, 1, id)
  found[#found + 1] = job
end

local function number_of(entry)
  return tonumber(string.match(entry, '^%d+'))
end

-- Goes through one lane from behind `after`; returns the entry at which it had enough, or nil.
local function in_lane(lane, after)
  local lane_key, stopped, at = base .. ':lane:' .. lane, nil, after
  local claimed, waiting = last_claimed(lane_key), state == 'waiting'
  local spare = waiting and spare_count(lane_key) or 0
  local first, last = waiting and spare == 0 and '(' .. claimed or '-', waiting and '+' or claimed
  if after and reversed then
    last = '(' .. after
  elseif after and not (waiting and spare == 0 and number_of(after) < number_of(claimed)) then
    first = '(' .. after -- else what stood behind it has been claimed meanwhile
  end
  each_entry(lane_key, first, last, reversed, function(entry, parts)
    if full() then
      stopped = at or ''
      return false
    end
    at = entry
    bytes = bytes + #(parts.d or '')
    local idle, is_waiting = nil, waiting
    if not waiting or spare > 0 then
      local pending = redis.pcall('XPENDING', lane_key, 'w', entry, entry, 1)
      local held = not pending.err and pending[1]
      idle = held and held[2] ~= SPARE and held[3]
      is_waiting = waiting and not idle
    end
    if is_waiting or not waiting and idle then
      take(parts.j or string.match(entry, '^%d+'), lane, parts, idle or nil)
    end
    return true
  end)
  return stopped
end

-- The parked jobs stand behind the last lane.
local PARKING = 5

local function in_parking(after)
  return each_parked(base, after, reversed, function(id, lane)
    if full() then
      return false
    end
    if id then
      take(id, lane)
    else
      looked = looked + 1
    end
    return true
  end)
end

local function by_lanes()
  local last = state == 'waiting' and PARKING or PARKING - 1
  local lane, after = string.match(cursor, '^(%d):(.*)$')
  lane = tonumber(lane) or reversed and last or 1
  while lane >= 1 and lane <= last do
    local stopped
    if lane == PARKING then
      stopped = in_parking(after or '')
    else
      stopped = in_lane(lane, after ~= '' and after or nil)
    end
    if stopped then
      return lane .. ':' .. stopped
    end
    lane, after = lane + (reversed and -1 or 1), nil
  end
  return ''
end

-- The cursor names the job that was told last and its score: if it has gone, its score says where it stood.
local function by_rank()
  local key = base .. ':' .. state
  local from = 0
  local score, member = string.match(cursor, '^(%d+):(.*)$')
  if score then
    local rank = redis.call(reversed and 'ZREVRANK' or 'ZRANK', key, member)
    if rank then
      from = rank + 1
    elseif reversed then
      from = redis.call('ZCOUNT', key, '(' .. score, '+inf')
    else
      from = redis.call('ZCOUNT', key, '-inf', '(' .. score)
    end
  end
  from, skipped = from + skip, skip
  local upto = from + (name ~= '' and LOOK or count) - 1
  local items = redis.call(reversed and 'ZREVRANGE' or 'ZRANGE', key, from, upto, 'WITHSCORES')
  local at = nil
  for i = 1, #items, 2 do
    if full() then
      break
    end
    take(items[i], redis.call('HGET', base .. ':job:' .. items[i], 'p') or '3')
    at = items[i + 1] .. ':' .. items[i]
  end
  return from + looked < redis.call('ZCARD', key) and at or ''
end

local in_lanes = state == 'waiting' or state == 'active'
local next_cursor = in_lanes and by_lanes() or by_rank()
return { next_cursor, skipped, unpack(found) }
