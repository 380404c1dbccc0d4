-- Writes an entry at a lane's end. Its number comes from the queue's counter; entries that somebody else has written (a bare
-- XADD takes its id from the clock) may stand above that. Then the counter moves past them, and all goes on from there.
local LAST_NUMBER = 9000000000000000 -- up to here Lua counts exactly

local function next_number(base)
  return string.format('%.0f-0', redis.call('INCR', base .. ':id'))
end

local function number_in(entry)
  return tonumber(string.match(entry, '^%d+'))
end

local function value_of(flat, name)
  for at = 1, #flat, 2 do
    if flat[at] == name then
      return flat[at + 1]
    end
  end
end

-- Takes entries out that no counter can reach, as if they had never been there. Returns what they held, and the highest
-- number that is left.
local function cut_off(lane_key, counter)
  local taken = {}
  for _, item in ipairs(redis.call('XRANGE', lane_key, string.format('%.0f-0', LAST_NUMBER + 1), '+')) do
    redis.pcall('XACK', lane_key, 'w', item[1])
    redis.call('XDEL', lane_key, item[1])
    taken[#taken + 1] = item[2]
  end
  local last = redis.call('XREVRANGE', lane_key, '+', '-', 'COUNT', 1)[1]
  local top = math.max(last and number_in(last[1]) + 1 or 0, counter)
  local top_id = string.format('%.0f-0', top)
  redis.call('XSETID', lane_key, top_id)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', lane_key)) do
    if number_in(value_of(group, 'last-delivered-id')) > LAST_NUMBER then
      redis.call('XGROUP', 'SETID', lane_key, value_of(group, 'name'), top_id)
    end
  end
  return taken, top
end

local function make_way(base, lane_key)
  local counter, taken = tonumber(redis.call('GET', base .. ':id') or 0), {}
  local top = number_in(value_of(redis.call('XINFO', 'STREAM', lane_key), 'last-generated-id'))
  if top > LAST_NUMBER then
    taken, top = cut_off(lane_key, counter)
  end
  redis.call('SET', base .. ':id', string.format('%.0f', math.max(top, counter)))
  for _, fields in ipairs(taken) do
    redis.call('XADD', lane_key, next_number(base), unpack(fields))
  end
end

-- Appends `entry`, or, if entries of others are in its way, another one. Returns the one that it became.
local function append(base, lane_key, entry, ...)
  local added = redis.pcall('XADD', lane_key, entry, ...)
  if added.err then
    if string.find(added.err, 'equal or smaller', 1, true) or string.find(added.err, 'exhausted', 1, true) then
      make_way(base, lane_key)
      entry = next_number(base)
    end
    redis.call('XADD', lane_key, entry, ...)
  end
  return entry
end
