#!lua flags=allow-oom
-- cancel_many: jobs of one state, waiting | delayed | waiting_children | active, or those named -> cancelled, or asked to
--          be, as cancel does each.
-- KEYS     1 queue base
-- ARGV     1 state, or "" for the jobs named  2 "" | the cutoff of the reply before  3 "" | the cursor of the reply before
--          4 how many at most in this call  5 "" | a job name, encoded  6 reason  7 keep count  8 keep age ms
--          9 cap of the event stream  10 … ids of the jobs named, all of which this call sees to
-- RETURNS  {cutoff ms, cursor ("": all were looked at), ids of those that are cancelled or asked …}
-- RACES    as cancel, for each. Jobs that come into the state between two calls are younger than the cutoff, or met later.
-- @include lib/clock
-- @include lib/sound
-- @include lib/events
-- @include lib/record
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/match
-- @include lib/lane
-- @include lib/turn
-- @include lib/moves
-- @include lib/cancels
-- @include lib/cancel_job
-- @include lib/each_parked
-- @include lib/overlap
local base, state, cutoff, cursor, limit = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local name, reason, keep_count, keep_age_ms, cap = unpack(ARGV, 5, 9)
sound(base, limit, keep_count, keep_age_ms)
local LOOK = 1000
local turn = new_turn(base, now_ms(), cap, nil, read_meta(base))
local ids, looked = {}, 0
cutoff = cutoff or turn.now

local function take(id, job)
  cancel_job(turn, id, job, reason, keep_count, keep_age_ms)
  ids[#ids + 1] = id
end

local function matches(id, since, envelope)
  return tonumber(since or 0) <= cutoff and has_name(name ~= '' and (envelope or record_envelope(job_key(turn, id))), name)
end

-- Parked jobs come first, since the end of others would bring them into the lanes. What is cancelled changes the order of
-- the keys, so this goes through them again until there was nothing to cancel.
local PARKING = 5

local function in_parking(after)
  local some, at = string.match(after, '^(%d):(.*)$')
  local found = {}
  local stopped = each_parked(base, at or '', false, function(id, _, since)
    if looked >= LOOK or #ids + #found >= limit then
      return false
    end
    looked = looked + 1
    if id and matches(id, since) then
      found[#found + 1] = id
    end
    return true
  end)
  turn.in_place = true
  for _, id in ipairs(found) do
    take(id, locate(base, id))
  end
  some = (some == '1' or #found > 0) and 1 or 0
  if stopped then
    return PARKING .. ':' .. some .. ':' .. stopped
  end
  return some == 1 and PARKING .. ':0:' or '1:'
end

local function in_lanes()
  local lane, after = string.match(cursor, '^(%d):(.*)$')
  if state == 'waiting' and (not lane or tonumber(lane) == PARKING) then
    local on = in_parking(after or '')
    if on ~= '1:' then
      return on
    end
    lane, after = '1', ''
  end
  for number = tonumber(lane) or 1, 4 do
    local key, at = lane_key(turn, number), after or ''
    local last = state == 'active' and last_claimed(key) or '+'
    local whole = each_entry(key, at ~= '' and '(' .. at or '-', last, false, function(entry, parts)
      if looked >= LOOK or #ids >= limit then
        return false
      end
      looked, at = looked + 1, entry
      local id = parts.j or string.match(entry, '^%d+')
      local job = matches(id, parts.t, parts.d) and locate(base, id)
      if job and job.entry == entry and job.state == state then
        take(id, job)
      end
      return true
    end)
    if not whole then
      return number .. ':' .. at
    end
    after = nil
  end
  return ''
end

local function by_rank()
  local from = tonumber(cursor) or 0
  local key = base .. ':' .. state
  local size = redis.call('ZCARD', key)
  local found = redis.call('ZRANGE', key, from, from + limit - 1)
  for _, id in ipairs(found) do
    -- A parent may have ended with the child before it.
    if redis.call('ZSCORE', key, id) and matches(id, redis.call('HGET', job_key(turn, id), 'c')) then
      take(id, { state = state, lane = redis.call('HGET', job_key(turn, id), 'p') })
    end
  end
  -- Parents that ended with their children have gone as well, wherever they stood.
  local gone = math.max(size - redis.call('ZCARD', key), #ids)
  return #found == limit and tostring(math.max(from + limit - gone, 0)) or ''
end

local next_cursor = ''
if state == '' then
  for at = 10, #ARGV do
    local job = unended(base, ARGV[at])
    if job then
      take(ARGV[at], job)
    end
  end
else
  next_cursor = (state == 'delayed' or state == 'waiting_children') and by_rank() or in_lanes()
end
retain(turn)
let_go(turn)
publish_all(turn)
return { string.format('%.0f', cutoff), next_cursor, unpack(ids) }
