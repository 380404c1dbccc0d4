-- Active jobs that are to end as cancelled. `cancels` says so under a job's entry, until that entry ends, in whichever way:
-- an entry is never given out twice, so no request outlives its run. The worker is woken by `control`, and told by `renew`.
local CONTROL_MS = 60000

-- Asks for an active job (see lib/locate) to end; the first request's reason stands. Returns whether this was the first.
local function ask_to_end(base, job, reason, keep_count, keep_age_ms)
  local asked = cmsgpack.pack({ job.worker, job.lane, reason, tonumber(keep_count), tonumber(keep_age_ms) })
  local first = redis.call('HSETNX', base .. ':cancels', job.entry, asked) == 1
  local control = base .. ':control:' .. job.worker
  if redis.call('LLEN', control) == 0 then
    redis.call('RPUSH', control, '1')
  end
  redis.call('PEXPIRE', control, CONTROL_MS)
  return first
end

-- What was asked of an entry: {worker, lane, reason, keep count, keep age ms}; nil if nothing was.
local function request_of(base, entry)
  local asked = redis.call('HGET', base .. ':cancels', entry)
  return asked and cmsgpack.unpack(asked) or nil
end

local function forget_request(base, entry)
  redis.call('HDEL', base .. ':cancels', entry)
end
