-- @needed by bound jobs only
-- @include lib/bound
-- @include lib/unique
-- @include lib/family
-- @include lib/parking
-- @include lib/webhook
-- What binds a job to others: a unique key (lib/unique), its family (lib/family), a key that says whom it is for (lib/places),
-- who is told of its end (lib/webhook).
-- A bound job has a record, with its bonds in fields of their own. `meta` says `bound` once a queue has had such a job; until
-- then all of this costs one field that is read along.
-- The gates that a new job passes, in this order: it holds its unique key; its children have ended; its time has come; its
-- key has a place for it.

-- What would become of a new job, as `judge_unique` says it: "free" and "next" are added.
local function judge(base, bonds)
  if bonds.u then
    return judge_unique(base, bonds.u)
  end
  return 'free'
end

-- Binds a new job: its id, number, lane, start, envelope. Returns {the id of the job that is there instead, "known" |
-- "replaced" | "refused"} if it is not to be added; else nil, what its record says of its bonds, and whether it has to wait
-- behind all times.
local function bind(base, cap, now, job, bonds)
  local fields, parked = {}, false
  if bonds.u then
    local instead, is_next = take_unique(base, cap, now, job, bonds.u)
    if instead then
      return instead
    end
    parked = is_next
    add_unique(fields, bonds.u)
  end
  if bonds.f then
    join_family(base, job.id, bonds.f, fields)
  end
  if bonds.k then
    extend(fields, { 'ky', bonds.k })
  end
  if bonds.w then
    extend(fields, { 'wh', bonds.w })
  end
  return nil, fields, parked
end

-- A job was claimed that holds its unique key until then.
local function start_bound(base, now, id, unique_key)
  release_unique(base, now, id, 'started', unique_key, UNTIL_START)
end

-- A claim that never started went back to its lane.
local function return_bound(base, id)
  retake_unique(base, id)
end

local BONDS = { 'uk', 'uw', 'ky', 'fl', 'fn', 'wh' }

-- The bonds in a job's record, by field; nil if it has none.
local function bonds_in(base, id)
  local found = nil
  for at, value in ipairs(redis.call('HMGET', base .. ':job:' .. id, unpack(BONDS))) do
    if value then
      found = found or {}
      found[BONDS[at]] = value
    end
  end
  return found
end

-- What is left to do when an ended job is no longer kept.
local function unbind_forgotten(base, now, cap, id)
  local its = bonds_in(base, id) or {}
  if its.uk then
    release_unique(base, now, id, 'forgotten', its.uk, its.uw)
  end
  if its.fn then
    leave_family(base, now, cap, id, 'forgotten')
  end
end

-- A job goes its last step, `how`: completed | failed | cancelled | removed, once each, before its record changes hands or
-- goes; `body` is the result or the error. `forgotten` follows when the record goes by retention, or was never to be kept.
-- Parents that end with it go the same way. Returns whether the job is bound at all.
local function unbind(base, now, cap, id, how, body, old)
  local bonds = bonds_in(base, id)
  if not bonds then
    return false
  end
  local going = { { base = base, id = id, how = how, body = body, old = old, bonds = bonds } }
  for _, job in ipairs(going) do
    local its = job.bonds or bonds_in(job.base, job.id) or {}
    if its.uk then
      release_unique(job.base, now, job.id, job.how, its.uk, its.uw)
    end
    if its.wh then
      announce(job.base, now, cap, job.id, job.how, its.wh)
    end
    if its.ky and job.how ~= 'forgotten' then
      leave(job.base, its.ky, job.id)
    end
    if its.fl or its.fn then
      extend(going, leave_family(job.base, now, cap, job.id, job.how, job.body))
    end
    for _, old in ipairs(job.old or {}) do
      unbind_forgotten(job.base, now, cap, old)
      redis.call('UNLINK', job.base .. ':job:' .. old, job.base .. ':log:' .. old, job.base .. ':steps:' .. old)
    end
  end
  return true
end

-- As `unbind`, whatever the record holds: what can't be read of it is let go piece by piece.
local function unbind_whatever(base, now, cap, id, how, body)
  if pcall(unbind, base, now, cap, id, how, body) then
    return
  end
  local read, its = pcall(bonds_in, base, id)
  if read and its and its.uk then
    pcall(release_unique, base, now, id, how, its.uk, its.uw)
  end
  pcall(release_key, base, id)
  pcall(leave_family, base, now, cap, id, how, body)
end

local function unbind_all(base, now, cap, ids, how)
  if #ids > 0 and is_bound(base) then
    for _, id in ipairs(ids) do
      unbind(base, now, cap, id, how)
    end
    if settle_keys(base, now) then
      wake_unless_paused(base)
    end
  end
end

-- An ended job comes back to life, and parents that failed because of it wait again. Returns nil, or what forbids it:
-- {"held", the unique key's holder, the key}; then nothing was written.
local function rebind(base, now, cap, id)
  local holder, key = retake_unique(base, id)
  if holder then
    return { 'held', holder, key }
  end
  local coming = { { base = base, id = id } }
  for _, job in ipairs(coming) do
    for _, parent in ipairs(rejoin_family(job.base, job.id)) do
      if not retake_unique(parent.base, parent.id) then
        come_back(parent.base, parent.id, parent.letter, 'failed')
        await_children(parent.base, now, cap, parent.id)
        coming[#coming + 1] = parent
      end
    end
  end
end
