-- How many jobs may start now, by the queue's rate limit and its limit of jobs that run at once.
-- The rate is a sliding window: `starts` lists what was claimed and when ("ms:count"), oldest first. The window is a
-- little longer than asked for, because handlers start a moment after their claim, and not all after the same moment.
local MARGIN, LONGEST_MARGIN_MS = 0.02, 50

local function active_jobs(turn)
  local active = 0
  for lane = 1, 4 do
    local groups = redis.pcall('XINFO', 'GROUPS', lane_key(turn, lane))
    for _, group in ipairs(groups.err and {} or groups) do
      for at = 1, #group, 2 do
        if group[at] == 'pending' then
          active = active + group[at + 1]
        end
      end
    end
  end
  return active - turn.spare
end

-- Returns how many of `want` may start, and when (ms) the rate allows the next one if it held some back.
local function allowed(turn, want, meta)
  local next_at = nil
  local hold_until = turn.hold_until or tonumber(meta.hold_until)
  if hold_until and hold_until > turn.now then
    return 0, hold_until
  end
  if meta.max_active then
    want = math.max(math.min(want, tonumber(meta.max_active) - active_jobs(turn)), 0)
  end
  if meta.rate_max and want > 0 then
    local starts_key = turn.base .. ':starts'
    local window = tonumber(meta.rate_ms) + math.min(math.ceil(tonumber(meta.rate_ms) * MARGIN), LONGEST_MARGIN_MS)
    local used, oldest = 0, nil
    for _, start in ipairs(redis.call('LRANGE', starts_key, 0, -1)) do
      local at, count = string.match(start, '^(%d+):(%d+)$')
      if tonumber(at) + window <= turn.now or tonumber(at) > turn.now then -- over, or the clock was put back
        redis.call('LPOP', starts_key)
      else
        oldest = oldest or tonumber(at)
        used = used + tonumber(count)
      end
    end
    local room = math.max(tonumber(meta.rate_max) - used, 0)
    if want > room then
      want = room
      next_at = oldest and oldest + window or nil
    end
    turn.window = window
  end
  return want, next_at
end

-- Notes what was claimed. The list goes away by itself once nothing in it counts any more.
local function note_starts(turn, count)
  if turn.window and count > 0 then
    redis.call('RPUSH', turn.base .. ':starts', string.format('%.0f:%d', turn.now, count))
    redis.call('PEXPIRE', turn.base .. ':starts', turn.window)
  end
end
