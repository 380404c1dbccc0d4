-- Cancels a job that has not ended (see lib/locate): one that waits or is delayed ends here, a running one's worker is
-- asked. Returns "cancelled" | "asked".
local function cancel_job(turn, id, job, reason, keep_count, keep_age_ms)
  if job.state == 'active' then
    ask_to_end(turn.base, job, reason, keep_count, keep_age_ms)
    return 'asked'
  end
  local fields, parts = {}, job.parts or {}
  if job.entry then
    local lane_key = lane_key(turn, job.lane)
    redis.call('XACK', lane_key, 'w', job.entry) -- it may have been given back unstarted
    redis.call('XDEL', lane_key, job.entry)
    if not job.record then
      extend(fields, { 'c', parts.t or turn.now_text })
    end
  elseif job.record and job.record.s == 'p' then
    leave(turn.base, job.record.ky, id, turn.in_place)
  else
    redis.call('ZREM', turn.base .. ':' .. job.state, id)
    redis.call('HDEL', job_key(turn, id), 'u')
  end
  cancel(turn, job.lane, id, parts, reason, tonumber(keep_count), tonumber(keep_age_ms), fields)
  return 'cancelled'
end
