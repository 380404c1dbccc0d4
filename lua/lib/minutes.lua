-- @include lib/parked
-- @include lib/counter
-- minutes: what happened minute by minute, for charts. `meta` counts the minute that runs; the first tick of a later one
-- writes it down, with how many jobs waited or ran and were delayed at its end. It must never fail a tick.
local MINUTES = 1440
local COUNTED = { completed = 'minute_c', failed = 'minute_f', retrying = 'minute_r', stalled = 'minute_s' }

local function close_minute(turn, minute)
  local meta = turn.base .. ':meta'
  local counts = redis.call('HMGET', meta, 'minute_c', 'minute_f', 'minute_r', 'minute_s')
  local held = parked_jobs(turn.base)
  for lane = 1, 4 do
    held = held + redis.call('XLEN', lane_key(turn, lane))
  end
  redis.pcall('XADD', turn.base .. ':minutes', 'MAXLEN', MINUTES, string.format('%.0f-0', minute * 60000),
    'c', counts[1] or 0, 'f', counts[2] or 0, 'r', counts[3] or 0, 's', counts[4] or 0,
    'w', held, 'd', redis.call('ZCARD', turn.base .. ':delayed'))
  redis.call('HDEL', meta, 'minute_c', 'minute_f', 'minute_r', 'minute_s')
end

-- `running` is the minute that `meta` counts. A clock that goes back lets it run on.
local function count_minute(turn, running)
  local minute = math.floor(turn.now / 60000)
  running = tonumber(running)
  if not running or minute > running then
    if running then
      close_minute(turn, running)
    end
    redis.call('HSET', turn.base .. ':meta', 'minute', minute)
  end
  for kind, field in pairs(COUNTED) do
    local ids = turn.events[kind]
    if ids then
      count_up(turn.base, field, #ids)
    end
  end
end
