-- What has started within a sliding window: a list of "ms:count", the oldest first. The window is a little longer than asked
-- for, because handlers start a moment after their claim, and not all after the same moment.
local MARGIN, LONGEST_MARGIN_MS = 0.02, 50

-- Returns how many started within the window that ends now, when the first of them did (ms), and the window's length.
local function starts_within(starts_key, per_ms, now)
  local window = per_ms + math.min(math.ceil(per_ms * MARGIN), LONGEST_MARGIN_MS)
  local used, oldest = 0, nil
  for _, start in ipairs(redis.call('LRANGE', starts_key, 0, -1)) do
    local at, count = string.match(start, '^(%d+):(%d+)$')
    if tonumber(at) + window <= now or tonumber(at) > now then -- over, or the clock was put back
      redis.call('LPOP', starts_key)
    else
      oldest = oldest or tonumber(at)
      used = used + tonumber(count)
    end
  end
  return used, oldest, window
end

-- Notes what starts. The list goes away by itself once nothing in it counts any more.
local function note_start(starts_key, now, count, window)
  redis.call('RPUSH', starts_key, string.format('%.0f:%d', now, count))
  redis.call('PEXPIRE', starts_key, window)
end
