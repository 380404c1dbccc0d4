-- How many jobs are parked for want of a place of their key: lane by lane, and in all.
local function parked_by_lane(base)
  return redis.call('HMGET', base .. ':meta', 'parked_1', 'parked_2', 'parked_3', 'parked_4')
end

local function parked_jobs(base)
  local sum = 0
  for _, count in ipairs(parked_by_lane(base)) do
    sum = sum + (tonumber(count) or 0)
  end
  return sum
end
