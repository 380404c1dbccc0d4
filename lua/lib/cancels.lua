-- Active jobs that are to end as cancelled. `cancels:<worker>` says so of what that worker holds, under the entry, until the
-- entry ends, in whichever way: an entry is never given out twice, so no request outlives its run. The worker is woken by
-- `control:<worker>`, and told by `renew`, which also keeps its requests from expiring.
local CONTROL_MS, CANCELS_MS = 60000, 86400000

local function cancels_key(base, worker)
  return base .. ':cancels:' .. worker
end

-- Asks for an active job (see lib/locate) to end; the first request's reason stands.
local function ask_to_end(base, job, reason, keep_count, keep_age_ms)
  local asked = cmsgpack.pack({ job.lane, reason, tonumber(keep_count), tonumber(keep_age_ms) })
  redis.call('HSETNX', cancels_key(base, job.worker), job.entry, asked)
  redis.call('PEXPIRE', cancels_key(base, job.worker), CANCELS_MS)
  local control = base .. ':control:' .. job.worker
  if redis.call('LLEN', control) == 0 then
    redis.call('RPUSH', control, '1')
  end
  redis.call('PEXPIRE', control, CONTROL_MS)
end

-- Reads a request; nil if somebody else wrote it.
local function read_request(asked)
  local read, request = pcall(cmsgpack.unpack, asked)
  local sound = read and type(request) == 'table' and type(request[2]) == 'string'
    and tonumber(request[1]) and tonumber(request[3]) and tonumber(request[4])
  return sound and request or nil
end

-- What was asked of an entry: {lane, reason, keep count, keep age ms}; nil if nothing was.
local function request_of(base, worker, entry)
  local asked = redis.pcall('HGET', cancels_key(base, worker), entry)
  return type(asked) == 'string' and read_request(asked) or nil
end

local function forget_request(base, worker, entry)
  redis.call('HDEL', cancels_key(base, worker), entry)
end
