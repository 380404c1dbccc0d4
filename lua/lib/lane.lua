-- @include lib/entry
-- What waits in a lane: all entries behind the one that was claimed last. Claimed ones are pending or deleted.
local FIRST_READ, LARGEST_READ, SMALL_BYTES = 16, 512, 65536

local function last_claimed(lane_key)
  local groups = redis.pcall('XINFO', 'GROUPS', lane_key)
  for _, group in ipairs(groups.err and {} or groups) do
    for at = 1, #group, 2 do
      if group[at] == 'last-delivered-id' then
        return group[at + 1]
      end
    end
  end
  return '0-0'
end

-- Calls `visit(entry, parts)` for the entries between two bounds until it returns false or none is left; returns whether
-- it went through to the end. Reads little at a time at first, and more while the entries are small.
local function each_entry(lane_key, first, last, reversed, visit)
  local count = FIRST_READ
  while true do
    local items
    if reversed then
      items = redis.call('XREVRANGE', lane_key, last, first, 'COUNT', count)
    else
      items = redis.call('XRANGE', lane_key, first, last, 'COUNT', count)
    end
    local bytes = 0
    for _, item in ipairs(items) do
      local parts = parts_of(item[2])
      bytes = bytes + #(parts.d or '')
      if not visit(item[1], parts) then
        return false
      end
    end
    if #items < count then
      return true
    end
    if reversed then
      last = '(' .. items[#items][1]
    else
      first = '(' .. items[#items][1]
    end
    if bytes < SMALL_BYTES then
      count = math.min(count * 4, LARGEST_READ)
    end
  end
end
