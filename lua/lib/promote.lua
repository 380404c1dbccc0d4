-- @include lib/lanes
-- promote: delayed and due -> waiting. Returns how many.
local PROMOTE_JOBS = 200

local function promote_one(turn, id, since, entry)
  local key = job_key(turn, id)
  local lane, its_key = unpack(redis.call('HMGET', key, 'p', 'ky'))
  if not LANES[lane] then
    error('it has no lane', 0)
  end
  if its_key and turn.bound then
    enter(turn.base, turn.now, its_key, id, lane, since, entry)
  else
    -- It waits since it was due, however late this is.
    entry = append(turn.base, lane_key(turn, lane), entry, 'j', id, 't', since)
    redis.call('HSET', key, 's', 'q', 'e', entry)
  end
  redis.call('HDEL', key, 'u')
  tell(turn, 'promoted', id)
end

local function promote(turn)
  local delayed_key, due = turn.base .. ':delayed', {}
  local found = redis.call('ZRANGEBYSCORE', delayed_key, '-inf', turn.now, 'WITHSCORES', 'LIMIT', 0, PROMOTE_JOBS)
  local next_entry = #found > 0 and next_numbers(turn.base, #found / 2)
  for at = 1, #found, 2 do
    local id, since = found[at], found[at + 1]
    due[#due + 1] = id
    local promoted, err = pcall(promote_one, turn, id, since, next_entry())
    if not promoted then
      give_up(turn, redis.pcall('HGET', job_key(turn, id), 'p'), id, {}, why_of(err))
    end
  end
  in_thousands('ZREM', delayed_key, due)
  return #due
end
