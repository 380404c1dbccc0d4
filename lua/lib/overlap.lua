local ENDED = { completed = true, failed = true, cancelled = true }

-- Returns the job of a schedule's last firing (see lib/locate) if it has not ended.
local function unended(base, id)
  local job = id and locate(base, id)
  return job and not ENDED[job.state] and job or nil
end
