-- How many claims of a lane were given back unstarted and wait.
local function spare_count(lane_key)
  local summary = redis.pcall('XPENDING', lane_key, 'w')
  for _, consumer in ipairs(not summary.err and summary[4] or {}) do
    if consumer[1] == SPARE then
      return tonumber(consumer[2])
    end
  end
  return 0
end
