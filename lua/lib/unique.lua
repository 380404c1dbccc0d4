-- @needed by bound jobs only
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/record
-- @include lib/entry
-- @include lib/append
-- @include lib/spare
-- @include lib/locate
-- @include lib/parking
-- A unique key belongs to one job: `:unique:<key>` holds that job's id. The record's fields: uk the key; uw how long it is
-- held: "p" until the job starts, "r" until it has ended, "k" while it is kept; ut for how many ms at most.
-- `:next:<key>` is the job that gets the key when its holder has ended: it has a record, and stands in `delayed` behind
-- all times until then.
local NEVER = 9000000000000000

local function is_parked(base, id)
  return tonumber(redis.call('ZSCORE', base .. ':delayed', id)) == NEVER
end

-- States in which a job can be replaced.
local PENDING = { waiting = true, delayed = true, waiting_children = true }

local function hold_unique(base, key, id, ttl)
  if ttl then
    redis.call('SET', base .. ':unique:' .. key, id, 'PX', ttl)
  else
    redis.call('SET', base .. ':unique:' .. key, id)
  end
end

-- Whoever holds a key; nil if that job's record was deleted behind our back, which must not block the key for ever. (The
-- key of a job that has gone by retention may outlive it, but then it has a TTL.)
local function unique_holder(base, key)
  local holder = redis.call('GET', base .. ':unique:' .. key)
  if not holder then
    return nil
  end
  local lost = redis.call('EXISTS', base .. ':job:' .. holder) == 0 and redis.call('PTTL', base .. ':unique:' .. key) == -1
  return not lost and holder or nil
end

-- Gives a job that waits or is delayed (see lib/locate) all that a newer one asked for, except its id and its bonds: its
-- attempts count from nothing. It keeps its place in its lane if that is where the newer one would go.
local function replace_job(base, cap, now, id, job, newer)
  local key, lane_key = base .. ':job:' .. id, base .. ':lane:' .. job.lane
  local due = newer.start ~= '0' and due_ms(newer.start, now)
  local fields = add_envelope({ 'p', newer.lane, 'a', 0, 'k', 0 }, newer.envelope)
  local its_key, in_place = job.record and job.record.ky, job.entry and not job.parts.d or job.record and job.record.s == 'p'
  redis.call('HDEL', key, 'b', 'g', 'm', 'n', 'x', unpack(PIECE_FIELDS))
  if job.state == 'waiting_children' or job.state == 'delayed' and is_parked(base, id) then
    redis.call('HSET', key, 'u', due or now, unpack(fields)) -- that counts once its children have ended, or it has the key
  elseif not due and in_place and job.lane == newer.lane then
    redis.call('HSET', key, unpack(fields))
  else
    if its_key then
      leave(base, its_key, id)
    end
    if job.entry then
      redis.call('XACK', lane_key, 'w', job.entry) -- it may be spare
      redis.call('XDEL', lane_key, job.entry)
    end
    if due then
      redis.call('HSET', key, 's', 'd', 'u', due, unpack(fields))
      redis.call('ZADD', base .. ':delayed', due, id)
    else
      redis.call('ZREM', base .. ':delayed', id)
      redis.call('HDEL', key, 'u')
      if its_key then
        if not enter(base, now, its_key, id, newer.lane, now, newer.number .. '-0', fields) then
          redis.call('HSET', key, 'kw', now) -- it was created before it began to wait here
        end
      else
        local entry = append(base, base .. ':lane:' .. newer.lane, newer.number .. '-0', 'j', id, 't', now)
        redis.call('HSET', key, 's', 'q', 'e', entry, unpack(fields))
      end
    end
  end
  publish(base, cap, 'updated', { id })
  wake_unless_paused(base)
end

-- What becomes of a new job that asks for a key. `unique`: k the key, w how long, t ttl in ms, c what if it is held: "e" the
-- holder stands for it, "x" it is refused, "r" it takes the place of a holder that has not started, "l" so it does, and
-- behind one that runs it is next. Returns "free" | "known" | "refused" | "replaced" | "next", the id of the job that is
-- there, and that job (see lib/locate) if it is to be replaced. Writes nothing.
local function judge_unique(base, unique)
  local holder = unique_holder(base, unique.k)
  if not holder then
    return 'free'
  elseif unique.c == 'e' or unique.c == 'x' then
    return unique.c == 'e' and 'known' or 'refused', holder
  end
  local next_id = unique.c == 'l' and redis.call('GET', base .. ':next:' .. unique.k)
  local older = next_id and locate(base, next_id)
  local older_id = older and next_id or holder
  older = older or locate(base, holder)
  if older and PENDING[older.state] then
    return 'replaced', older_id, older
  end
  return older and older.state == 'active' and unique.c == 'l' and 'next' or 'refused', holder
end

-- A new job takes its key, or another place. Returns nil if it holds the key now, and nil and true if it is next: it must
-- not start yet. Else it is not to be added: {who is there instead, "known" | "replaced" | "refused"}.
local function take_unique(base, cap, now, job, unique)
  local how, there, older = judge_unique(base, unique)
  if how == 'free' then
    hold_unique(base, unique.k, job.id, unique.t)
    return nil
  elseif how == 'next' then
    redis.call('SET', base .. ':next:' .. unique.k, job.id)
    redis.call('PERSIST', base .. ':unique:' .. unique.k) -- the next one waits for its holder's end, not for a time
    return nil, true
  elseif how == 'replaced' then
    replace_job(base, cap, now, there, older, job)
  end
  return { there, how }
end

-- What a record says of its job's key, for `enqueue`.
local function add_unique(fields, unique)
  local at = #fields
  fields[at + 1], fields[at + 2], fields[at + 3], fields[at + 4] = 'uk', unique.k, 'uw', unique.w
  if unique.t then
    fields[at + 5], fields[at + 6] = 'ut', unique.t
  end
end

-- The next job gets the key. It lines up as one that is due, so that whoever counts or removes delayed jobs finds it.
local function hand_over(base, now, key, next_id)
  redis.call('DEL', base .. ':next:' .. key)
  local due, ttl = unpack(redis.call('HMGET', base .. ':job:' .. next_id, 'u', 'ut'))
  if not due then
    redis.call('DEL', base .. ':unique:' .. key)
    return
  end
  hold_unique(base, key, next_id, ttl)
  redis.call('ZADD', base .. ':delayed', math.max(now, tonumber(due)), next_id)
  wake_unless_paused(base)
end

-- What leaves the key with its holder, by how long it is held; a start frees only a pending job's.
local UNTIL_START = 'p'
local HOLDS_ON = {
  p = {},
  r = {},
  k = { completed = true, failed = true },
}

-- A job starts, ends or goes: its key, which it holds as `mode` says (until its end, if somebody else has written that), is
-- released if it is to be, and nobody else's. A key that is held for a time outlives a record that goes by retention.
local function release_unique(base, now, id, how, key, mode)
  local unique_key, next_id = base .. ':unique:' .. key, redis.call('GET', base .. ':next:' .. key)
  if redis.call('GET', unique_key) ~= id then
    if next_id == id and how ~= 'started' then
      redis.call('DEL', base .. ':next:' .. key)
    end
  elseif next_id and how ~= 'started' then
    hand_over(base, now, key, next_id)
  elseif not (HOLDS_ON[mode] or HOLDS_ON.r)[how] and not (how == 'forgotten' and redis.call('PTTL', unique_key) >= 0) then
    redis.call('DEL', unique_key)
  end
end

-- A job that has ended is to run again, or a claim of it that never started went back: it takes its key again. Returns
-- the id of the job that holds it by now, if that is another one, and the key; then nothing was written.
local function retake_unique(base, id)
  local key, ttl = unpack(redis.call('HMGET', base .. ':job:' .. id, 'uk', 'ut'))
  if not key then
    return nil
  end
  local holder = unique_holder(base, key)
  if not holder then
    hold_unique(base, key, id, ttl)
  end
  return holder ~= id and holder or nil, key
end
