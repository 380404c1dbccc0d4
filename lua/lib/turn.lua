-- @include lib/bonds
-- @include lib/in_thousands
-- @include lib/quick
-- What one call gathers and then writes in few commands: events by kind, ended jobs by set, records to drop.
local SETS = { completed = 'completed_age', failed = 'failed_age', cancelled = 'cancelled_age' }
local EXPIRE_JOBS, TRIM_JOBS = 100, 1000

-- The fields of `meta` that a tick needs, by name; what isn't set is absent.
local META = {
  'paused', 'completed_age', 'failed_age', 'audit_at', 'rate_max', 'rate_ms', 'rate_full', 'max_active', 'hold_until',
  'spare', 'minute', 'bound', 'logged', 'cancelled_age', 'stepped',
}

local function read_meta(base)
  local meta = {}
  local values = redis.call('HMGET', base .. ':meta', unpack(META))
  for at = 1, #META do
    meta[META[at]] = values[at] or nil
  end
  return meta
end

-- `ages` holds how long ended jobs are kept; `bound`, `logged` and `stepped` whether any job of the queue ever was.
local function new_turn(base, now, event_cap, dead_cap, meta)
  if meta.bound then
    need_bonds()
  end
  return {
    base = base, now = now, now_text = string.format('%.0f', now), event_cap = event_cap, dead_cap = dead_cap,
    ages = {
      completed = tonumber(meta.completed_age),
      failed = tonumber(meta.failed_age),
      cancelled = tonumber(meta.cancelled_age),
    },
    spare = tonumber(meta.spare) or 0, bound = meta.bound ~= nil, logged = meta.logged ~= nil,
    stepped = meta.stepped ~= nil,
    events = {}, kinds = {}, ended = {}, keep = {}, doomed = {},
  }
end

local function lane_key(turn, lane)
  return turn.base .. ':lane:' .. lane
end

local function job_key(turn, id)
  return turn.base .. ':job:' .. id
end

local function tell(turn, kind, id)
  local ids = turn.events[kind]
  if not ids then
    ids = {}
    turn.events[kind] = ids
    turn.kinds[#turn.kinds + 1] = kind
  end
  ids[#ids + 1] = id
end

-- What a job's attempts have remembered goes with its record, or before: once it has completed, another run begins anew.
local function forget_steps(turn, id)
  if turn.stepped then
    turn.doomed[#turn.doomed + 1] = turn.base .. ':steps:' .. id
  end
end

local function forget(turn, id, is_plain)
  if turn.bound and not is_plain then
    unbind_whatever(turn.base, turn.now, turn.event_cap, id, 'forgotten')
  end
  local doomed = turn.doomed
  doomed[#doomed + 1] = job_key(turn, id)
  if turn.logged then
    doomed[#doomed + 1] = turn.base .. ':log:' .. id
  end
  forget_steps(turn, id)
end

-- `body` is the result or the error. The record says all that it is to say of the end. `may_be_bound`: not if its entry
-- held all that there was of it.
local function end_job(turn, set, id, keep_count, keep_age_ms, body, may_be_bound)
  local bound = turn.bound and may_be_bound and unbind(turn.base, turn.now, turn.event_cap, id, set, body)
  if keep_count == 0 then
    forget(turn, id, not bound)
    return
  end
  if set == 'completed' then
    forget_steps(turn, id)
  end
  local ended = turn.ended[set]
  if not ended then
    ended = {}
    turn.ended[set] = ended
  end
  ended[#ended + 1] = turn.now_text
  ended[#ended + 1] = id
  turn.keep[set] = keep_count
  if turn.ages[set] ~= keep_age_ms then
    turn.ages[set] = keep_age_ms
    redis.call('HSET', turn.base .. ':meta', SETS[set], keep_age_ms)
  end
end

-- Writes the ended jobs, and dooms those over the count and over the age: by time too, when nothing new ends. Returns
-- whether it may have left some for the next tick.
local function retain(turn)
  local behind = false
  for set in pairs(SETS) do
    local set_key = turn.base .. ':' .. set
    if turn.ended[set] then
      in_thousands('ZADD', set_key, turn.ended[set])
      local size = redis.call('ZCARD', set_key)
      local excess = math.min(size - turn.keep[set], TRIM_JOBS)
      make_quick(set_key, size)
      if excess > 0 then
        for _, id in ipairs(redis.call('ZRANGE', set_key, 0, excess - 1)) do
          forget(turn, id)
        end
        redis.call('ZREMRANGEBYRANK', set_key, 0, excess - 1)
        behind = behind or excess == TRIM_JOBS
      end
    end
    if turn.ages[set] then
      local old = redis.call('ZRANGEBYSCORE', set_key, '-inf', turn.now - turn.ages[set], 'LIMIT', 0, EXPIRE_JOBS)
      for _, id in ipairs(old) do
        forget(turn, id)
      end
      in_thousands('ZREM', set_key, old)
      behind = behind or #old == EXPIRE_JOBS
    end
  end
  return behind
end

local function let_go(turn)
  if turn.bound and settle_keys(turn.base, turn.now) then
    wake_unless_paused(turn.base)
  end
  unlink(turn.doomed)
end

-- In the order in which they came up, so that a job promoted and claimed by one call is told to be promoted first.
local function publish_all(turn)
  for _, kind in ipairs(turn.kinds) do
    publish(turn.base, turn.event_cap, kind, turn.events[kind])
  end
end
