-- @include lib/parking
-- @include lib/parked
local PARKED_PAGE = 100

-- Goes through parked jobs: the keys with most jobs first, each lane by lane; from `at` on, which is where it stopped before
-- ("" for the start). Calls `visit(id, lane, since)` until it returns false, without an id for what has gone meanwhile and
-- for each key. Returns where it stopped, or nil at the end.
local function each_parked(base, at, reversed, visit)
  if parked_jobs(base) <= 0 then
    return nil
  end
  local rank, lane, index, key = string.match(at, '^(%d+):(%d):(%d+):(.*)$')
  local keys_key, first, step = base .. ':keys', reversed and 4 or 1, reversed and -1 or 1
  rank = key and redis.call('ZREVRANK', keys_key, key) or tonumber(rank) or 0
  lane, index = tonumber(lane) or first, tonumber(index) or 0
  key = redis.call('ZREVRANGE', keys_key, rank, rank)[1]
  while key do
    while lane >= 1 and lane <= 4 do
      local from, upto = index, index + PARKED_PAGE - 1
      if reversed then
        from, upto = -upto - 1, -index - 1
      end
      local items = redis.call('LRANGE', parking_key(base, lane, key), from, upto)
      for i = 1, #items do
        local id, since = parked_job(base, lane, items[reversed and #items + 1 - i or i])
        if not visit(id, lane, since) then
          return rank .. ':' .. lane .. ':' .. index .. ':' .. key
        end
        index = index + 1
      end
      if #items < PARKED_PAGE then
        lane, index = lane + step, 0
      end
    end
    rank, lane = rank + 1, first
    key = redis.call('ZREVRANGE', keys_key, rank, rank)[1]
    if key and not visit(nil, lane) then
      return rank .. ':' .. lane .. ':0:' .. key
    end
  end
  return nil
end
