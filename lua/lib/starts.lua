-- What has started within a sliding window: a list of "ms:count", the oldest first. The window is a little longer than asked
-- for, because handlers start a moment after their claim, and not all after the same moment.
local MARGIN, LONGEST_MARGIN_MS = 0.02, 50

local function window_of(per_ms)
  return per_ms + math.min(math.ceil(per_ms * MARGIN), LONGEST_MARGIN_MS)
end

-- Looks at what started within the window that ends now. Returns how many did, and when the first of them did (ms); with
-- `pace` also how many did in the last so many ms, and when the first of those did.
local function starts_within(starts_key, window, now, pace)
  local used, oldest, lately, first_lately = 0, nil, 0, nil
  local starts = redis.pcall('LRANGE', starts_key, 0, -1)
  if starts.err then
    redis.call('UNLINK', starts_key) -- somebody has made it another type
    starts = {}
  end
  for _, start in ipairs(starts) do
    local at, count = string.match(start, '^(%d+):(%d+)$')
    at = tonumber(at)
    if not at then
      redis.call('LREM', starts_key, 1, start) -- nobody of ours wrote that
    elseif at + window <= now or at > now then -- over, or the clock was put back
      redis.call('LREM', starts_key, 1, start) -- one of ours that counts may stand before it
    else
      oldest = oldest or at
      used = used + count
      if pace and at + pace > now then
        first_lately = first_lately or at
        lately = lately + count
      end
    end
  end
  return used, oldest, lately, first_lately
end

-- Notes what starts. The list goes away by itself once nothing in it counts any more.
local function note_start(starts_key, now, count, window)
  redis.call('RPUSH', starts_key, string.format('%.0f:%d', now, count))
  redis.call('PEXPIRE', starts_key, window)
end
