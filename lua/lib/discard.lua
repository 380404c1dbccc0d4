-- @include lib/bonds
-- @include lib/in_thousands
-- @include lib/parked
-- Takes jobs out of a queue for good, up to `limit` a call; none that a worker holds. Each returns the ids.

local function forget(base, now, cap, ids)
  unbind_all(base, now, cap, ids, 'removed')
  local keys = {}
  for at, id in ipairs(ids) do
    keys[3 * at - 2], keys[3 * at - 1], keys[3 * at] = base .. ':job:' .. id, base .. ':log:' .. id, base .. ':steps:' .. id
  end
  unlink(keys)
end

local LOOK_AT_KEYS = 1000

-- Takes parked jobs that wait since `cutoff` or before off their key's lists, the keys with most jobs first, from rank `from`
-- on; adds their ids to `ids`. Returns the rank to go on from, or nil at the end.
local function collect_parked(base, cutoff, limit, from, ids)
  local keys = redis.call('ZREVRANGE', base .. ':keys', from, from + LOOK_AT_KEYS - 1)
  for _, key in ipairs(keys) do
    for lane = 4, 1, -1 do
      local list, young = parking_key(base, lane, key), false
      while #ids < limit and not young do
        local items, done = redis.call('LRANGE', list, 0, limit - #ids - 1), 0
        for _, item in ipairs(items) do
          local id, since = parked_job(base, lane, item)
          young = id and (tonumber(since) or 0) > cutoff
          if young then
            break
          end
          ids[#ids + 1] = id
          done = done + 1
        end
        redis.call('LTRIM', list, done, -1)
        young = young or #items == 0
      end
    end
  end
  if #ids > 0 then
    return from -- keys that have no more jobs go, and others take their ranks
  end
  return #keys == LOOK_AT_KEYS and from + LOOK_AT_KEYS or nil
end

local IN_LANES = -1

-- Waiting jobs that came into their lane at `cutoff` or before: those that are parked, then the least urgent lane first, the
-- oldest first. Returns also where to go on (0 at the start), or nil at the end.
local function discard_waiting(base, now, cap, cutoff, limit, from)
  local ids = {}
  if from ~= IN_LANES and parked_jobs(base) > 0 then
    from = collect_parked(base, cutoff, limit, from, ids)
    if from then
      forget(base, now, cap, ids)
      return ids, from
    end
  end
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
    in_thousands('XDEL', lane_key, entries)
  end
  forget(base, now, cap, ids)
  return ids, #ids == limit and IN_LANES or nil
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
  forget(base, now, cap, ids)
  in_thousands('ZREM', base .. ':delayed', ids) -- one may have got the unique key of one that went before it
  return ids, #looked == limit and from + #looked - #ids or nil
end

-- Ended jobs that finished at `cutoff` or before, the oldest first.
local function discard_ended(base, now, cap, state, cutoff, limit)
  local key = base .. ':' .. state
  local ids = redis.call('ZRANGEBYSCORE', key, '-inf', cutoff, 'LIMIT', 0, limit)
  in_thousands('ZREM', key, ids)
  forget(base, now, cap, ids)
  return ids
end
