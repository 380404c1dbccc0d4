-- promote: delayed and due -> waiting. Returns how many.
local PROMOTE_JOBS = 200

local function promote(turn)
  local due = redis.call('ZRANGEBYSCORE', turn.base .. ':delayed', '-inf', turn.now, 'LIMIT', 0, PROMOTE_JOBS)
  for _, id in ipairs(due) do
    local key = job_key(turn, id)
    local lane = redis.call('HGET', key, 'p')
    if lane then
      local entry = next_number(turn.base)
      redis.call('XADD', lane_key(turn, lane), entry, 'j', id, 't', turn.now)
      redis.call('HSET', key, 's', 'q', 'e', entry)
      redis.call('HDEL', key, 'u')
      tell(turn, 'promoted', id)
    end
  end
  in_thousands('ZREM', turn.base .. ':delayed', due)
  return #due
end
