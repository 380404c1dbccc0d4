-- At most one token: one token wakes one worker, and that worker's tick leaves another if work is left.
local function wake(base)
  if redis.call('LLEN', base .. ':wake') == 0 then
    redis.call('RPUSH', base .. ':wake', '1')
  end
end

local function wake_unless_paused(base)
  if redis.call('HEXISTS', base .. ':meta', 'paused') == 0 then
    wake(base)
  end
end
