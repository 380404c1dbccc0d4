-- At most one token: one token wakes one worker, and that worker's tick leaves another if work is left.
local function wake(base)
  local key = base .. ':wake'
  local tokens = redis.pcall('LLEN', key)
  if type(tokens) == 'table' then
    redis.call('UNLINK', key) -- somebody has made it another type: nothing can be in it that is needed
    tokens = 0
  end
  if tokens == 0 then
    redis.call('RPUSH', key, '1')
  end
end

local function wake_unless_paused(base)
  if redis.call('HEXISTS', base .. ':meta', 'paused') == 0 then
    wake(base)
  end
end
