-- Whether a handler may still report on its job: its entry is pending. Sees to it that the job has a record to report in.
local function report_to_record(lane_key, job_key, lane, entry)
  local pending = redis.pcall('XPENDING', lane_key, 'w', entry, entry, 1)
  if pending.err or #pending == 0 then
    return false
  end
  if redis.call('EXISTS', job_key) == 0 then
    local parts = read_entry(lane_key, entry)
    if not parts then
      return false
    end
    redis.call('HSET', job_key, 's', 'q', 'p', lane, 'e', entry, 'c', parts.t)
  end
  return true
end
