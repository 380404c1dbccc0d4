-- @include lib/spare
-- @include lib/spare_count
-- @include lib/starts
-- How many jobs may start now, by the queue's rate limit and its limit of jobs that run at once.
-- The rate is a sliding window (see lib/starts).

-- While a backlog stands at the limit, starts are spread over the window: all that start in one moment would otherwise
-- do so again a window later, for ever. A tenth of the window may start a tenth of the rate, and a little more, so that
-- ticks which come late lose nothing. A queue that was quiet may start as many at once as the rate allows.
local PACES, SHORTEST_PACE_MS, SLACK = 10, 50, 1.25

-- Returns how many jobs are claimed, those that were given back included, and how many entries there are in all.
local function entries_of(turn)
  local claimed, all = 0, 0
  for lane = 1, 4 do
    local key = lane_key(turn, lane)
    local groups = redis.pcall('XINFO', 'GROUPS', key)
    for _, group in ipairs(groups.err and {} or groups) do
      for at = 1, #group, 2 do
        if group[at] == 'pending' then
          claimed = claimed + group[at + 1]
        end
      end
    end
    all = all + redis.call('XLEN', key)
  end
  return claimed, all
end

-- How many of the claimed ones were given back. `turn.spare` may count some that were removed since, so it only says
-- whether there are any.
local function given_back(turn)
  local count = 0
  for lane = 1, turn.spare > 0 and 4 or 0 do
    count = count + spare_count(lane_key(turn, lane))
  end
  return count
end

-- Returns how many may start now, and when (ms) more may.
local function room_in_window(turn, rate_max, rate_ms, full_at)
  local window = window_of(rate_ms)
  local pace = math.max(window / PACES, SHORTEST_PACE_MS)
  local used, oldest, lately, first_lately = starts_within(turn.base .. ':starts', window, turn.now, pace)
  turn.window = window
  local room, next_at = math.max(rate_max - used, 0), oldest and oldest + window
  if full_at + 2 * window > turn.now then
    local share = math.max(math.ceil(rate_max * pace / window * SLACK) - lately, 0)
    if share < room then
      return share, math.ceil((first_lately or turn.now) + pace)
    end
  end
  return room, next_at
end

-- Returns how many of `want` may start, and when (ms) the rate allows the next one if it held some back.
local function allowed(turn, want, meta)
  local next_at = nil
  local hold_until = turn.hold_until or tonumber(meta.hold_until)
  if hold_until and hold_until > turn.now then
    return 0, hold_until
  end
  local most, rate_max, rate_ms = tonumber(meta.max_active), tonumber(meta.rate_max), tonumber(meta.rate_ms)
  if most then
    want = math.max(math.min(want, most - entries_of(turn) + given_back(turn)), 0)
  end
  if rate_max and rate_ms and want > 0 then
    local room
    room, next_at = room_in_window(turn, rate_max, rate_ms, tonumber(meta.rate_full) or 0)
    turn.short = want > room
    want = math.min(want, room)
    if not turn.short then
      next_at = nil
    end
  end
  return want, next_at
end

-- Notes what was claimed, and whether a backlog met the limit.
local function note_starts(turn, count, may)
  if turn.window and count > 0 then
    note_start(turn.base .. ':starts', turn.now, count, turn.window)
  end
  if turn.short and count == may then
    local claimed, all = entries_of(turn)
    if all > claimed then
      redis.call('HSET', turn.base .. ':meta', 'rate_full', turn.now_text)
    end
  end
end
