-- @include lib/bonds
-- Takes a job (see lib/locate) out of the queue with all that is kept of it. An active one's entry is taken from its
-- worker, whose outcome is then stale.
local function take_out(base, now, cap, id, job)
  unbind_all(base, now, cap, { id }, 'removed')
  if job.entry then
    local lane_key = base .. ':lane:' .. job.lane
    redis.call('XACK', lane_key, 'w', job.entry)
    redis.call('XDEL', lane_key, job.entry)
    if job.state == 'active' then
      redis.call('HDEL', base .. ':cancels:' .. job.worker, job.entry)
    end
  elseif job.state ~= 'waiting' then
    redis.call('ZREM', base .. ':' .. job.state, id)
  end
  if job.record and job.record.q then
    redis.call('XDEL', base .. ':dead', job.record.q)
  end
  redis.call('UNLINK', base .. ':job:' .. id, base .. ':log:' .. id, base .. ':steps:' .. id)
  publish(base, cap, 'removed', { id })
end
