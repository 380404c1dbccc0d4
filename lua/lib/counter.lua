-- Counts in `meta`. A counter that somebody has made something else than a number begins anew: it must not stop who counts.
local function count_up(base, field, by)
  local found = redis.pcall('HINCRBY', base .. ':meta', field, by)
  if type(found) == 'table' and found.err then
    redis.call('HSET', base .. ':meta', field, math.max(by, 0))
  end
end
