-- @include lib/bonds
-- Adds jobs to their lanes or to `delayed`. `jobs` is flat, four per job: lane, start, job id, envelope.
--   start: "0" now | "+MS" so many ms from now | "@MS" at that time; behind a "|" the job's bonds, if it has any: a msgpack
--   map of u (its unique key, see lib/unique), k (its key, see lib/places) and f (its family, see below). job id: "" has one
--   generated.
--   f: t the add that it came with; p its parents, as the record's `fl` (see lib/family); n how many children it waits for,
--   and then k, as `fk`; q the queue for which it is, if that is another one. Parents come before their children.
-- Returns {first number, then for each job that was not added: its position (from 1) if its id was known already, or
-- {position, the id of the job that is there instead, "known" | "replaced" | "refused", the unique key}}; job i without an
-- id of its own is number first + i - 1.
local PER_JOB = 4

-- Adds a job that has bonds: its id, number, lane, start, envelope. That is in its record, so that it can be replaced in
-- place. Returns "added" with whether it is parked | "delayed" with when it is due | else what is there instead of it.
local function enqueue_bound(base, cap, now, job, bonds)
  redis.call('HSET', base .. ':meta', 'bound', 1)
  local instead, fields, parked = bind(base, cap, now, job, bonds)
  if instead then
    return instead
  end
  local key, start = base .. ':job:' .. job.id, job.start
  extend(fields, { 'p', job.lane, 'c', now })
  add_envelope(fields, job.envelope)
  if bonds.f and bonds.f.n then
    if start ~= '0' then
      extend(fields, { 'u', due_ms(start, now) })
    end
    redis.call('HSET', key, unpack(fields))
    await_children(base, now, cap, job.id)
    return 'waiting_children'
  end
  if start == '0' and not parked and bonds.k then
    return 'added', not enter(base, now, bonds.k, job.id, job.lane, now, job.number .. '-0', fields)
  elseif start == '0' and not parked then
    local entry = append(base, base .. ':lane:' .. job.lane, job.number .. '-0', 'j', job.id, 't', now)
    redis.call('HSET', key, 's', 'q', 'e', entry, unpack(fields))
    return 'added'
  end
  local due = start == '0' and now or due_ms(start, now)
  redis.call('HSET', key, 's', 'd', 'u', due, unpack(fields))
  redis.call('ZADD', base .. ':delayed', parked and NEVER or due, job.id)
  return 'delayed', due
end

-- A job that is there stands for a new one, which is therefore not added: that one's parents wait for it.
local function stand_in(base, now, cap, id, bonds)
  if bonds and bonds.f then
    redis.call('HSET', base .. ':meta', 'bound', 1) -- the job that is there may have been the queue's first
    for _, parent in ipairs(adopt(base, now, cap, id, bonds.f)) do
      unbind(parent.base, now, cap, parent.id, parent.how, parent.body, parent.old)
    end
  end
end

-- A child that nobody waits for (its parent was there already, has gone or has ended) is not added.
local function is_wanted(base, bonds)
  if not bonds.f or not bonds.f.p then
    return true
  end
  bonds.f.p = willing_parents(base, bonds.f)
  return #bonds.f.p > 0
end

local function enqueue(base, cap, now, jobs, from)
  local count = (#jobs - from + 1) / PER_JOB
  local first = redis.call('INCRBY', base .. ':id', count) - count + 1
  local reply, added, delayed, earliest, aside, some_bound = { first }, {}, {}, nil, 0, false
  local lane_prefix, now_text = base .. ':lane:', string.format('%.0f', now) -- a number is converted anew at each call
  for i = 1, count do
    local at = from + (i - 1) * PER_JOB
    local lane, start, id, envelope = jobs[at], jobs[at + 1], jobs[at + 2], jobs[at + 3]
    local number = string.format('%.0f', first + i - 1)
    local plain = start == '0' and id == ''
    -- Fails if somebody else's entry stands in its way: then the job takes another entry, to which a record points.
    if plain and not redis.pcall('XADD', lane_prefix .. lane, number .. '-0', 'd', envelope, 't', now_text).err then
      added[#added + 1] = number
    else
      local custom, bonds = id ~= '', nil
      id = custom and id or number
      local job_key = base .. ':job:' .. id
      start, bonds = bonds_of(start)
      some_bound = some_bound or bonds ~= nil
      if bonds and bonds.f and bonds.f.q then
        local other = family_base(base, bonds.f.q)
        bonds.f.q = nil
        local told = enqueue(other, cap, now, { lane, start .. '|' .. cmsgpack.pack(bonds), jobs[at + 2], envelope }, 1)
        reply[#reply + 1] = told[2] and i
      elseif custom and redis.call('EXISTS', job_key) == 1 then
        reply[#reply + 1] = i
        stand_in(base, now, cap, id, bonds)
      elseif bonds and not is_wanted(base, bonds) then
        reply[#reply + 1] = i
      elseif bonds then
        local job = { id = id, number = number, lane = lane, start = start, envelope = envelope }
        local how, due = enqueue_bound(base, cap, now, job, bonds)
        if how == 'added' then
          added[#added + 1] = id
          aside = aside + (due and 1 or 0)
        elseif how == 'delayed' then
          delayed[#delayed + 1] = id
          earliest = math.min(earliest or due, due)
        elseif type(how) == 'table' then
          reply[#reply + 1] = { i, how[1], how[2], bonds.u.k }
          stand_in(base, now, cap, how[1], bonds)
        end
      elseif start == '0' then
        local entry = append(base, lane_prefix .. lane, number .. '-0', 'd', envelope, 't', now_text, 'j', id)
        redis.call('HSET', job_key, 's', 'q', 'p', lane, 'e', entry, 'c', now_text)
        added[#added + 1] = id
      else
        local due = due_ms(start, now)
        local fields = { 's', 'd', 'p', lane, 'c', now, 'u', due }
        add_envelope(fields, envelope)
        redis.call('HSET', job_key, unpack(fields))
        redis.call('ZADD', base .. ':delayed', due, id)
        delayed[#delayed + 1] = id
        earliest = math.min(earliest or due, due)
      end
    end
  end
  publish(base, cap, 'added', added)
  publish(base, cap, 'delayed', delayed)

  local opened = some_bound and settle_keys(base, now)
  local wanted = #added > aside or opened
  if not wanted and earliest then
    -- Idle workers sleep until the earliest delayed job: tell one if that is sooner now.
    wanted = tonumber(redis.call('ZRANGE', base .. ':delayed', 0, 0, 'WITHSCORES')[2]) == earliest
  end
  if wanted and redis.call('HEXISTS', base .. ':meta', 'paused') == 0 then
    wake(base)
  end
  return reply
end
