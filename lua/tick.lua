#!lua flags=allow-oom
-- tick: everything that a worker does between two looks at its queue, in one call.
--   settle   active -> completed | delayed | failed | waiting, for each attempt that has ended
--   renew    this worker's lease
--   sweep    active, its worker's lease lapsed -> waiting, or failed as poison
--   promote  delayed and due -> waiting
--   claim    waiting -> active, lane by lane, oldest first
-- KEYS     1 queue base
-- ARGV     1 worker  2 lease in ms  3 jobs wanted  4 stalls that fail a job  5 "1": also list what this worker holds
--          6 cap of the event stream  7 cap of the dead letters  8 number of marks
--          9 … the marks: job ids of suspects (they stalled before) that start now
--          then nine per outcome: kind, lane, entry, job id, body, a, b, started ms, attempts made
--            done     body result  a keep count  b keep age ms
--            retry    body error   a delay ms
--            fail     body error   a keep count  b keep age ms
--            release  body ""      a delay ms    b the counter to raise: i | n | ""
-- RETURNS  {now ms, ms until something is due (-1: nothing), {positions of stale outcomes}, {lane, entries, …} claimed,
--           {entry, job id, envelope, attempts, stalls, interruptions, releases, …} of those with a record,
--           {lane, entries, …} held, jobs requeued from lost workers, jobs promoted}
-- RACES    another worker's tick: XACK answers 1 to the holder of an entry only, so an outcome counts once. Sent again
--          (its reply was lost): outcomes are stale, and claims are found by the list of what is held.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/record
-- @include lib/entry
-- @include lib/enqueue
-- @include lib/batch
local base, worker, lease_ms, want = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local max_stalls, list_held, event_cap, dead_cap = tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6], ARGV[7]
local marks = tonumber(ARGV[8])
local FIRST_OUTCOME, PER_OUTCOME = 9 + marks, 9
local SWEEP_JOBS, PROMOTE_JOBS, EXPIRE_JOBS, AUDIT_MS = 200, 200, 100, 30000

local now = now_ms()
local meta_key, completed_key, failed_key = base .. ':meta', base .. ':completed', base .. ':failed'
local meta = redis.call('HMGET', meta_key, 'paused', 'completed_age', 'failed_age', 'audit_at')
local paused = meta[1]
local ages = { [completed_key] = tonumber(meta[2]), [failed_key] = tonumber(meta[3]) }
local audit_at = tonumber(meta[4]) or 0

local function lane_key_of(lane)
  return base .. ':lane:' .. lane
end

local function job_key_of(id)
  return base .. ':job:' .. id
end

-- Keys that go at the end of the call, in one command for many.
local doomed = {}
local function forget(id)
  doomed[#doomed + 1] = job_key_of(id)
  doomed[#doomed + 1] = base .. ':log:' .. id
end

local events = {}
local function tell(kind, id)
  local ids = events[kind]
  if not ids then
    ids = {}
    events[kind] = ids
  end
  ids[#ids + 1] = id
end

-- Ended jobs, gathered so that each set is written and trimmed once a call.
local ended = { [completed_key] = {}, [failed_key] = {} }
local keep = {}

local function end_job(set_key, id, keep_count, keep_age_ms)
  if keep_count == 0 then
    forget(id)
  else
    local pairs_of = ended[set_key]
    pairs_of[#pairs_of + 1] = now
    pairs_of[#pairs_of + 1] = id
    keep[set_key] = keep_count
  end
  if keep_count > 0 and ages[set_key] ~= keep_age_ms then
    ages[set_key] = keep_age_ms
    redis.call('HSET', meta_key, set_key == completed_key and 'completed_age' or 'failed_age', keep_age_ms)
  end
end

-- Puts a job back at the end of its lane under a new entry. `parts` is what its old entry held.
local function requeue(lane, id, parts, fields)
  local entry = next_number(base)
  if parts.d then
    redis.call('XADD', lane_key_of(lane), entry, 'j', id, 't', now, 'd', parts.d)
  else
    redis.call('XADD', lane_key_of(lane), entry, 'j', id, 't', now)
  end
  fields[#fields + 1], fields[#fields + 2], fields[#fields + 3] = 's', 'q', 'e'
  fields[#fields + 1], fields[#fields + 2], fields[#fields + 3] = entry, 'p', lane
  redis.call('HSET', job_key_of(id), unpack(fields))
end

local function delay(id, parts, due, fields)
  fields[#fields + 1], fields[#fields + 2], fields[#fields + 3], fields[#fields + 4] = 's', 'd', 'u', due
  if parts.d then
    add_envelope(fields, parts.d)
  end
  redis.call('HSET', job_key_of(id), unpack(fields))
  redis.call('ZADD', base .. ':delayed', due, id)
end

local function fail(lane, id, parts, err, keep_count, keep_age_ms, fields)
  local key = job_key_of(id)
  local envelope = parts.d or record_envelope(key) or ''
  local letter = redis.call('XADD', base .. ':dead', 'MAXLEN', '~', dead_cap, '*', 'j', id, 'd', envelope, 'x', err, 'p', lane)
  end_job(failed_key, id, keep_count, keep_age_ms)
  if keep_count > 0 then
    for _, value in ipairs({ 's', 'f', 'f', now, 'x', err, 'p', lane, 'q', letter }) do
      fields[#fields + 1] = value
    end
    if parts.d then
      add_envelope(fields, parts.d)
    end
    redis.call('HSET', key, unpack(fields))
  end
  tell('failed', id)
  tell('dead', id)
end

-- The first record of a job that had none: what its entry knew.
local function born(parts)
  if parts.j then
    return {}
  end
  return { 'c', parts.t or now }
end

-- settle -------------------------------------------------------------------------------------------------------------
local stale, dropped = {}, { {}, {}, {}, {} }
for at = FIRST_OUTCOME, #ARGV, PER_OUTCOME do
  local kind, lane, entry, id, body = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local a, b, started, attempts = tonumber(ARGV[at + 5]), ARGV[at + 6], ARGV[at + 7], ARGV[at + 8]
  local lane_key = lane_key_of(lane)
  if redis.call('XACK', lane_key, 'w', entry) == 0 then
    stale[#stale + 1] = (at - FIRST_OUTCOME) / PER_OUTCOME
  else
    local of_lane = dropped[tonumber(lane)]
    of_lane[#of_lane + 1] = entry
    if kind == 'done' and a == 0 then
      end_job(completed_key, id, 0, tonumber(b))
      tell('completed', id)
    else
      local parts = read_entry(lane_key, entry) or {}
      local fields = born(parts)
      fields[#fields + 1], fields[#fields + 2], fields[#fields + 3], fields[#fields + 4] = 'b', started, 'a', attempts
      if kind == 'done' then
        for _, value in ipairs({ 's', 'c', 'f', now, 'p', lane }) do
          fields[#fields + 1] = value
        end
        if body ~= '' then
          fields[#fields + 1], fields[#fields + 2] = 'r', body
        end
        if parts.d then
          add_envelope(fields, parts.d)
        end
        redis.call('HSET', job_key_of(id), unpack(fields))
        end_job(completed_key, id, a, tonumber(b))
        tell('completed', id)
      elseif kind == 'retry' then
        fields[#fields + 1], fields[#fields + 2], fields[#fields + 3], fields[#fields + 4] = 'x', body, 'p', lane
        if a == 0 then
          requeue(lane, id, parts, fields)
        else
          delay(id, parts, now + a, fields)
        end
        tell('retrying', id)
      elseif kind == 'fail' then
        fail(lane, id, parts, body, a, tonumber(b), fields)
      else
        if b ~= '' then
          redis.call('HINCRBY', job_key_of(id), b, 1)
        end
        fields[#fields + 1], fields[#fields + 2] = 'p', lane
        if a == 0 then
          requeue(lane, id, parts, fields)
        else
          delay(id, parts, now + a, fields)
          tell('delayed', id)
        end
      end
    end
  end
end
for lane = 1, 4 do
  local entries = dropped[lane]
  for from = 1, #entries, 1000 do
    redis.call('XDEL', lane_key_of(lane), unpack(entries, from, math.min(from + 999, #entries)))
  end
end

-- renew --------------------------------------------------------------------------------------------------------------
redis.call('ZADD', base .. ':workers', now + lease_ms, worker)

-- sweep --------------------------------------------------------------------------------------------------------------
for at = 9, 8 + marks do
  local key = job_key_of(ARGV[at])
  local entry = redis.call('HGET', key, 'e')
  if entry then
    redis.call('HSET', key, 'm', entry)
  end
end

-- A consumer that no lease speaks for (it was lost) gets one: a live worker renews it, a dead one's lapses.
if now >= audit_at then
  redis.call('HSET', meta_key, 'audit_at', now + AUDIT_MS)
  for lane = 1, 4 do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', lane_key_of(lane), 'w')
    if not consumers.err then
      for _, consumer in ipairs(consumers) do
        redis.call('ZADD', base .. ':workers', 'NX', now + lease_ms, consumer[2])
      end
    end
  end
end

local requeued = 0
local function sweep_job(lane, lane_key, entry)
  local parts = read_entry(lane_key, entry)
  redis.call('XACK', lane_key, 'w', entry)
  if not parts then
    return -- its entry was deleted behind our back: there is nothing left to run
  end
  redis.call('XDEL', lane_key, entry)
  local id = parts.j or string.match(entry, '^%d+')
  local key = job_key_of(id)
  local record = redis.call('HMGET', key, 'k', 'm')
  local stalls = tonumber(record[1]) or 0
  -- A suspect that was claimed but never started (another one took the worker down) is not to blame.
  if stalls == 0 or record[2] == entry then
    stalls = stalls + 1
  end
  local fields = born(parts)
  fields[#fields + 1], fields[#fields + 2] = 'k', stalls
  if stalls >= max_stalls then
    local why = 'its worker was lost ' .. stalls .. ' times while running it'
    fail(lane, id, parts, cmsgpack.pack({ 'WorkerLost', why, '' }), 500, 604800000, fields)
  else
    requeue(lane, id, parts, fields)
    tell('stalled', id)
  end
end

local lost = redis.call('ZRANGEBYSCORE', base .. ':workers', '-inf', now, 'LIMIT', 0, 10)
for _, gone in ipairs(lost) do
  local left = false
  for lane = 1, 4 do
    local lane_key = lane_key_of(lane)
    local room = SWEEP_JOBS - requeued
    local pending = room > 0 and redis.pcall('XPENDING', lane_key, 'w', '-', '+', room, gone) or {}
    if pending.err then
      pending = {}
    end
    for _, item in ipairs(pending) do
      sweep_job(lane, lane_key, item[1])
    end
    requeued = requeued + #pending
    left = left or #pending >= room
    if not left then
      redis.pcall('XGROUP', 'DELCONSUMER', lane_key, 'w', gone)
    end
  end
  if not left then
    redis.call('ZREM', base .. ':workers', gone)
  end
end

-- promote ------------------------------------------------------------------------------------------------------------
local due = redis.call('ZRANGEBYSCORE', base .. ':delayed', '-inf', now, 'LIMIT', 0, PROMOTE_JOBS)
for _, id in ipairs(due) do
  local key = job_key_of(id)
  local lane = redis.call('HGET', key, 'p')
  if lane then
    local entry = next_number(base)
    redis.call('XADD', lane_key_of(lane), entry, 'j', id, 't', now)
    redis.call('HSET', key, 's', 'q', 'e', entry)
    redis.call('HDEL', key, 'u')
    tell('promoted', id)
  end
end
if #due > 0 then
  redis.call('ZREM', base .. ':delayed', unpack(due))
end

for _, batch in ipairs(redis.call('ZRANGEBYSCORE', base .. ':batches', '-inf', now, 'LIMIT', 0, 1)) do
  move_part(base, event_cap, now, batch, PROMOTE_JOBS, 0)
end

-- retention ----------------------------------------------------------------------------------------------------------
for set_key, pairs_of in pairs(ended) do
  for from = 1, #pairs_of, 1000 do
    redis.call('ZADD', set_key, unpack(pairs_of, from, math.min(from + 999, #pairs_of)))
  end
  if keep[set_key] then
    local excess = redis.call('ZCARD', set_key) - keep[set_key]
    if excess > 0 then
      excess = math.min(excess, 1000)
      for _, id in ipairs(redis.call('ZRANGE', set_key, 0, excess - 1)) do
        forget(id)
      end
      redis.call('ZREMRANGEBYRANK', set_key, 0, excess - 1)
    end
  end
  if ages[set_key] then
    local old = redis.call('ZRANGEBYSCORE', set_key, '-inf', now - ages[set_key], 'LIMIT', 0, EXPIRE_JOBS)
    for _, id in ipairs(old) do
      forget(id)
    end
    if #old > 0 then
      redis.call('ZREM', set_key, unpack(old))
    end
  end
end
for from = 1, #doomed, 1000 do
  redis.call('UNLINK', unpack(doomed, from, math.min(from + 999, #doomed)))
end

-- claim --------------------------------------------------------------------------------------------------------------
local function read_lane(lane_key, count, from)
  local found = redis.pcall('XREADGROUP', 'GROUP', 'w', worker, 'COUNT', count, 'STREAMS', lane_key, from)
  if found and found.err then
    -- The group is not there: a new queue, or somebody destroyed it. Id 0 finds the jobs that wait.
    redis.call('XGROUP', 'CREATE', lane_key, 'w', '0', 'MKSTREAM')
    found = redis.call('XREADGROUP', 'GROUP', 'w', worker, 'COUNT', count, 'STREAMS', lane_key, from)
  end
  return found and found[1][2] or {}
end

local claimed, held, records, left = {}, {}, {}, want

-- Adds what the record knows of an entry; false if there is nothing to run.
local function recall(lane, lane_key, entry, fields, known)
  local parts = {}
  for at = 1, #fields, 2 do
    parts[fields[at]] = fields[at + 1]
  end
  local id = parts.j or string.match(entry, '^%d+')
  local key = job_key_of(id)
  local envelope = parts.d or record_envelope(key)
  if not envelope then
    redis.call('XACK', lane_key, 'w', entry)
    redis.call('XDEL', lane_key, entry)
    fail(lane, id, { d = '' }, cmsgpack.pack({ 'PayloadLost', 'the entry holds no job', '' }), 0, 0, {})
    forget(id)
    return nil
  end
  local history = redis.call('HMGET', key, 'a', 'k', 'i', 'n')
  for _, value in ipairs({ entry, id, envelope, history[1] or 0, history[2] or 0, history[3] or 0, history[4] or 0 }) do
    known[#known + 1] = value
  end
  return id
end

if not paused then
  for lane = 1, 4 do
    if left <= 0 then
      break
    end
    local lane_key = lane_key_of(lane)
    local entries = read_lane(lane_key, left, '>')
    if #entries > 0 then
      local good = {}
      for _, item in ipairs(entries) do
        local fields = item[2]
        local id
        if fields[1] == 'd' and fields[3] == 't' and not fields[5] then
          id = string.match(item[1], '^%d+')
        else
          id = recall(lane, lane_key, item[1], fields, records)
        end
        if id then
          good[#good + 1] = item
          tell('active', id)
        end
      end
      claimed[#claimed + 1], claimed[#claimed + 2] = lane, good
      left = left - #entries
    end
  end
end

if list_held then
  for lane = 1, 4 do
    local lane_key = lane_key_of(lane)
    local good = {}
    for _, item in ipairs(read_lane(lane_key, 10000, '0')) do
      if not item[2] then
        redis.call('XACK', lane_key, 'w', item[1])
      elseif recall(lane, lane_key, item[1], item[2], records) then
        good[#good + 1] = item
      end
    end
    held[#held + 1], held[#held + 2] = lane, good
  end
end

-- what others must know ----------------------------------------------------------------------------------------------
for kind, ids in pairs(events) do
  publish(base, event_cap, kind, ids)
end
if not paused and left <= 0 and (want > 0 or #due > 0 or requeued > 0) then
  wake(base)
end

local next_ms = -1
for _, key in ipairs({ base .. ':delayed', base .. ':workers', base .. ':batches' }) do
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if head[2] then
    local wait = math.max(tonumber(head[2]) - now, 0)
    if next_ms < 0 or wait < next_ms then
      next_ms = wait
    end
  end
end
return { now, next_ms, stale, claimed, records, held, requeued, #due }
