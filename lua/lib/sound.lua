-- A script that fails half way leaves what it has written by then. So one that writes much asks first whether the queue's
-- keys are what they are to be (a read that meets another type is an error), and whether its numbers are numbers.
local READS = {
  XLEN = { 'lane:1', 'lane:2', 'lane:3', 'lane:4', 'dead' },
  ZCARD = { 'delayed', 'completed', 'failed', 'cancelled', 'workers', 'batches', 'schedules' },
  GET = { 'id' },
  LLEN = { 'starts' },
}

local MOST = 9000000000000000 -- beyond, Lua does not count exactly

local function numbers(...)
  for at = 1, select('#', ...) do
    local number = tonumber((select(at, ...)))
    if not number or number ~= math.floor(number) or math.abs(number) > MOST then
      error('an argument that is to be a number is none', 0)
    end
  end
end

local function sound(base, ...)
  for read, names in pairs(READS) do
    for _, name in ipairs(names) do
      redis.call(read, base .. ':' .. name)
    end
  end
  redis.call('HEXISTS', base .. ':meta', 'paused')
  numbers(...)
end
