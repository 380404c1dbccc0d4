-- Writes an entry at a lane's end. Its number comes from the queue's counter; entries that somebody else has written (a bare
-- XADD takes its id from the clock) may stand above that. Then the counter moves past them, and all goes on from there.
local LAST_NUMBER = 9000000000000000 -- up to here Lua counts exactly

local function next_number(base)
  return string.format('%.0f-0', redis.call('INCR', base .. ':id'))
end

-- Takes `count` numbers at once; returns a function that hands them out, one a call.
local function next_numbers(base, count)
  local number = redis.call('INCRBY', base .. ':id', count) - count
  return function()
    number = number + 1
    return string.format('%.0f-0', number)
  end
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

-- What a consumer group knows: how far it has read, and which consumer holds which entries.
local function groups_of(lane_key)
  local groups = {}
  for at, group in ipairs(redis.call('XINFO', 'GROUPS', lane_key)) do
    local name, pending = value_of(group, 'name'), value_of(group, 'pending')
    groups[at] = {
      name = name, read = value_of(group, 'last-delivered-id'),
      held = pending > 0 and redis.call('XPENDING', lane_key, name, '-', '+', pending) or {},
    }
  end
  return groups
end

-- Takes entries out that no counter can reach, as if they had never been there. Returns what they held, and the highest
-- number that is left. Newer servers do not set a stream's last id back below that of an entry that was deleted from it:
-- so the lane is laid anew, entry by entry.
local function cut_off(lane_key, counter)
  local kept, taken, groups = {}, {}, groups_of(lane_key)
  for _, item in ipairs(redis.call('XRANGE', lane_key, '-', '+')) do
    local list = number_in(item[1]) > LAST_NUMBER and taken or kept
    list[#list + 1] = item
  end
  redis.call('DEL', lane_key)
  for _, item in ipairs(kept) do
    redis.call('XADD', lane_key, item[1], unpack(item[2]))
  end
  local top = math.max(#kept > 0 and number_in(kept[#kept][1]) + 1 or 0, counter)
  local top_id = string.format('%.0f-0', top)
  for _, group in ipairs(groups) do
    local read = number_in(group.read) > LAST_NUMBER and top_id or group.read
    redis.call('XGROUP', 'CREATE', lane_key, group.name, read, 'MKSTREAM')
    for _, item in ipairs(group.held) do
      redis.call('XCLAIM', lane_key, group.name, item[2], 0, item[1], 'FORCE', 'JUSTID')
    end
  end
  if redis.call('EXISTS', lane_key) == 1 then
    redis.call('XSETID', lane_key, top_id)
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
  for _, item in ipairs(taken) do
    redis.call('XADD', lane_key, next_number(base), unpack(item[2]))
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
