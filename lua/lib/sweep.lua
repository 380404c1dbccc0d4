-- @include lib/key_claims
-- sweep: active, its worker's lease lapsed -> waiting, or failed as poison, or cancelled as asked. Costs a dead worker's
-- jobs, not all jobs.
local SWEEP_JOBS, SWEEP_WORKERS, AUDIT_MS = 200, 10, 30000
local POISON_KEEP, POISON_AGE_MS = 500, 604800000

-- A suspect (a job that stalled before) starts now: from here on its worker's end is its fault. A worker that was swept
-- meanwhile has no say: the entry waits, or another one holds it, who may not have started it.
local function mark(turn, worker, id)
  local key = job_key(turn, id)
  local at = redis.pcall('HMGET', key, 'e', 'p')
  if at.err or not at[1] or not at[2] then
    return
  end
  local pending = redis.pcall('XPENDING', lane_key(turn, at[2]), 'w', at[1], at[1], 1, worker)
  if not pending.err and #pending > 0 then
    redis.call('HSET', key, 'm', at[1])
  end
end

-- What was asked of an entry that its worker no longer holds (it was deleted by hand, or an older version settled it) is void.
local function drop_void_requests(turn)
  for _, worker in ipairs(redis.call('ZRANGE', turn.base .. ':workers', 0, -1)) do
    local flat = redis.pcall('HGETALL', cancels_key(turn.base, worker))
    if flat.err then
      redis.call('UNLINK', cancels_key(turn.base, worker)) -- somebody has made it another type
    end
    for at = 1, #flat, 2 do
      local asked = read_request(flat[at + 1])
      local pending = asked and redis.pcall('XPENDING', lane_key(turn, asked[1]), 'w', flat[at], flat[at], 1, worker)
      if not asked or pending.err or #pending == 0 then
        forget_request(turn.base, worker, flat[at])
      end
    end
  end
end

-- A consumer that no lease speaks for (it was lost) gets one: a live worker renews it, a dead one's lapses. If the clock
-- was put back, leases end too late by as much: they are cut, and who lives renews.
local function audit(turn, audit_at, lease_ms, at_once)
  local due = tonumber(audit_at) or 0
  local put_back = due > turn.now + AUDIT_MS
  if turn.now < due and not put_back and not at_once then
    return
  end
  if put_back then
    for _, worker in ipairs(redis.call('ZRANGEBYSCORE', turn.base .. ':workers', turn.now + AUDIT_MS, '+inf')) do
      redis.call('ZADD', turn.base .. ':workers', turn.now + math.max(lease_ms, AUDIT_MS), worker)
    end
  end
  redis.call('HSET', turn.base .. ':meta', 'audit_at', turn.now + AUDIT_MS)
  drop_void_requests(turn)
  if turn.bound then
    audit_keys(turn)
  end
  for lane = 1, 4 do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', lane_key(turn, lane), 'w')
    for _, consumer in ipairs(consumers.err and {} or consumers) do
      if consumer[2] ~= SPARE then
        redis.call('ZADD', turn.base .. ':workers', 'NX', turn.now + lease_ms, consumer[2])
      end
    end
  end
end

local function sweep_job(turn, gone, lane, entry, max_stalls)
  local parts = read_entry(lane_key(turn, lane), entry)
  redis.call('XACK', lane_key(turn, lane), 'w', entry)
  local id = parts and parts.j or string.match(entry, '^%d+')
  if not parts then
    -- Somebody deleted the entry behind our back: there is nothing left to run. A record under its number says so.
    if redis.call('HGET', job_key(turn, id), 'e') == entry then
      fail(turn, lane, id, { j = id, d = '' }, payload_lost(), POISON_KEEP, POISON_AGE_MS, {})
    end
    return
  end
  redis.call('XDEL', lane_key(turn, lane), entry)
  local record = redis.call('HMGET', job_key(turn, id), 'k', 'm')
  local stalls = tonumber(record[1]) or 0
  -- A suspect that was claimed but never started is not to blame: another one took the worker down.
  if stalls == 0 or record[2] == entry then
    stalls = stalls + 1
  end
  local fields = { 'k', stalls }
  local asked = request_of(turn.base, gone, entry)
  if not parts.j then
    extend(fields, { 'c', parts.t or turn.now_text }) -- a record is made: it keeps what the entry knew
  end
  if asked then
    forget_request(turn.base, gone, entry)
    cancel(turn, lane, id, parts, asked[2], asked[3], asked[4], fields)
  elseif stalls >= max_stalls then
    turn.poisoned = (turn.poisoned or 0) + 1
    local err = cmsgpack.pack({ 'WorkerLost', 'its worker was lost ' .. stalls .. ' times while running it', '' })
    fail(turn, lane, id, parts, err, POISON_KEEP, POISON_AGE_MS, fields)
  else
    requeue(turn, lane, id, parts, fields)
    tell(turn, 'stalled', id)
  end
end

-- Returns how many jobs were taken back.
local function sweep(turn, max_stalls)
  local workers_key, taken = turn.base .. ':workers', 0
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', workers_key, '-inf', turn.now, 'LIMIT', 0, SWEEP_WORKERS)) do
    local left = false
    for lane = 1, 4 do
      local room = SWEEP_JOBS - taken
      local pending = room > 0 and redis.pcall('XPENDING', lane_key(turn, lane), 'w', '-', '+', room, gone) or {}
      pending = pending.err and {} or pending
      for _, item in ipairs(pending) do
        local entry = item[1]
        local parts = read_entry(lane_key(turn, lane), entry) or {}
        local swept, err = pcall(sweep_job, turn, gone, lane, entry, max_stalls)
        if not swept then
          redis.call('XDEL', lane_key(turn, lane), entry)
          give_up(turn, lane, parts.j or string.match(entry, '^%d+'), parts, why_of(err))
        end
      end
      taken = taken + #pending
      left = left or #pending >= room
      if not left then
        redis.pcall('XGROUP', 'DELCONSUMER', lane_key(turn, lane), 'w', gone)
      end
    end
    if not left then
      redis.call('ZREM', workers_key, gone)
      redis.call('UNLINK', cancels_key(turn.base, gone))
    end
  end
  return taken
end
