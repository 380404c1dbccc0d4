-- hand_out: schedules that are due -> this worker, for a second. It computes their slots and calls `fire`; if it dies or
-- fails, the next tick after that second hands them to another one.
local HAND_OUT, HAND_OUT_MS = 10, 1000

local function hand_out(turn)
  local schedules_key, due = turn.base .. ':schedules', {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', schedules_key, '-inf', turn.now, 'LIMIT', 0, HAND_OUT)) do
    if redis.call('EXISTS', schedule_key(turn.base, id)) == 1 then
      redis.call('ZADD', schedules_key, turn.now + HAND_OUT_MS, id)
      due[#due + 1] = id
    else
      redis.call('ZREM', schedules_key, id)
    end
  end
  return due
end
