-- The job of a schedule's previous firing: whether it has ended, and how it is taken out of the way.

-- Returns the job (see lib/locate) if it has not ended.
local function unended(base, id)
  local job = id and locate(base, id)
  return job and (job.state == 'waiting' or job.state == 'delayed' or job.state == 'active') and job or nil
end

-- An active job's entry is taken from its worker, whose outcome is then stale.
local function take_out(base, cap, id, job)
  if job.entry then
    local lane_key = base .. ':lane:' .. job.lane
    if job.state == 'active' then
      redis.call('XACK', lane_key, 'w', job.entry)
    end
    redis.call('XDEL', lane_key, job.entry)
  else
    redis.call('ZREM', base .. ':' .. job.state, id)
  end
  redis.call('UNLINK', base .. ':job:' .. id, base .. ':log:' .. id)
  publish(base, cap, 'removed', { id })
end
