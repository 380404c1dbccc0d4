-- @include lib/bonds
-- Takes jobs out of a queue for good, up to `limit` a call; none that a worker holds. Each returns the ids.

local function forget(base, now, cap, ids)
  unbind_all(base, now, cap, ids, 'removed')
  local keys = {}
  for at, id in ipairs(ids) do
    keys[2 * at - 1], keys[2 * at] = base .. ':job:' .. id, base .. ':log:' .. id
  end
  for from = 1, #keys, 1000 do
    redis.call('UNLINK', unpack(keys, from, math.min(from + 999, #keys)))
  end
end

local function in_parts(command, key, values)
  for from = 1, #values, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, #values)))
  end
end

-- Waiting jobs that came into their lane at `cutoff` or before: the least urgent lane first, the oldest first.
local function discard_waiting(base, now, cap, cutoff, limit)
  local ids = {}
  for lane = 4, 1, -1 do
    local lane_key, entries = base .. ':lane:' .. lane, {}
    local spare = redis.pcall('XPENDING', lane_key, 'w', '-', '+', limit - #ids, SPARE)
    for _, item in ipairs(spare.err and {} or spare) do
      local parts = read_entry(lane_key, item[1]) or {}
      if (tonumber(parts.t) or 0) <= cutoff then
        redis.call('XACK', lane_key, 'w', item[1])
        entries[#entries + 1] = item[1]
        ids[#ids + 1] = parts.j or string.match(item[1], '^%d+')
      end
    end
    each_entry(lane_key, '(' .. last_claimed(lane_key), '+', false, function(entry, parts)
      if #ids >= limit or (tonumber(parts.t) or 0) > cutoff then
        return false
      end
      entries[#entries + 1] = entry
      ids[#ids + 1] = parts.j or string.match(entry, '^%d+')
      return true
    end)
    in_parts('XDEL', lane_key, entries)
  end
  forget(base, now, cap, ids)
  return ids
end

-- Delayed jobs that were created at `cutoff` or before, the first due first. Looks at `limit` jobs from rank `from` on;
-- returns the rank to go on from too, or nil at the end.
local function discard_delayed(base, now, cap, cutoff, limit, from)
  local looked = redis.call('ZRANGE', base .. ':delayed', from, from + limit - 1)
  local ids = {}
  for _, id in ipairs(looked) do
    if tonumber(redis.call('HGET', base .. ':job:' .. id, 'c') or 0) <= cutoff then
      ids[#ids + 1] = id
    end
  end
  in_parts('ZREM', base .. ':delayed', ids)
  forget(base, now, cap, ids)
  return ids, #looked == limit and from + #looked - #ids or nil
end

-- Ended jobs that finished at `cutoff` or before, the oldest first.
local function discard_ended(base, now, cap, state, cutoff, limit)
  local key = base .. ':' .. state
  local ids = redis.call('ZRANGEBYSCORE', key, '-inf', cutoff, 'LIMIT', 0, limit)
  in_parts('ZREM', key, ids)
  forget(base, now, cap, ids)
  return ids
end
