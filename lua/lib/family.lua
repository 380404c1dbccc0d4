-- @needed by bound jobs only
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/record
-- @include lib/locate
-- @include lib/lineup
-- @include lib/dead_letter
-- @include lib/child
-- @include lib/counter
-- A job's family: its children, for whose ends it waits, and its parents, which wait for its own.
-- The record's fields. Of a child: fl its parents, a msgpack list of {queue or "" for its own, id, place, policy}. Of a
-- parent: fn children that it has had; fo those of them that have not ended; ff those whose failure is its own; ft the adds
-- that the last ones came with, the newest first; fk how its own end is kept (see end_parent); fx "1" if its children failed it.
-- `:children:<id>` has up to two fields per child: its place, from 1 -> queue ("" for the parent's own), NUL, id; and once
-- it has ended "e" and its place -> c | f | x | r (completed, failed, cancelled, removed) and its result or error, or "-" if
-- it is not to be told of. Setting that field is what counts an ending once.
-- Policies, what a child that did not complete means to its parent: f the parent fails, c it starts at once, i it is told,
-- r it is not even told.
local ENDINGS = { completed = 'c', failed = 'f', cancelled = 'x', removed = 'r' }
local ENDED_STATES = { c = 'completed', f = 'failed', x = 'cancelled' }
local ANCESTORS, TRIM_PARENTS = 10000, 10

local function parents_of(base, id)
  local parents = redis.call('HGET', base .. ':job:' .. id, 'fl')
  return parents and cmsgpack.unpack(parents) or {}
end

-- Why a parent fails: the child whose failure was the first one.
local function child_failed(id, how, body)
  local text = 'child ' .. id .. ' was ' .. how
  if how == 'failed' then
    local read, err = pcall(cmsgpack.unpack, body)
    err = read and type(err) == 'table' and err or { 'UnreadableError', '' }
    text = err[1] == 'ChildFailed' and err[2] or 'child ' .. id .. ' failed: ' .. err[1] .. ': ' .. err[2]
  end
  return cmsgpack.pack({ 'ChildFailed', text, '' })
end

-- Takes back all that an ended job's record says of its end.
local function come_back(base, id, letter, state)
  local key = base .. ':job:' .. id
  redis.call('HSET', key, 'a', 0, 'k', 0)
  redis.call('HDEL', key, 'f', 'b', 'g', 'q', 'm', 'n', 'r', 'w', 'fx')
  redis.call('ZREM', base .. ':' .. state, id)
  if letter then
    redis.call('XDEL', base .. ':dead', letter)
  end
end

local function await_children(base, now, cap, id)
  redis.call('HSET', base .. ':job:' .. id, 's', 'w')
  redis.call('ZADD', base .. ':waiting_children', now, id)
  publish(base, cap, 'waiting_children', { id })
end

-- What a parent has waited for is over: it may start, at its time.
local function start_parent(base, now, cap, id, lane, due)
  if redis.call('ZREM', base .. ':waiting_children', id) == 0 then
    return -- it is being removed
  end
  if due and tonumber(due) > now then
    redis.call('HSET', base .. ':job:' .. id, 's', 'd')
    redis.call('ZADD', base .. ':delayed', due, id)
    publish(base, cap, 'delayed', { id })
  else
    line_up(base, id, lane, now)
    redis.call('HDEL', base .. ':job:' .. id, 'u')
    publish(base, cap, 'children_ended', { id })
  end
  wake_unless_paused(base)
end

-- A parent ends without running: failed by a child, or completed because nothing failed that it was to handle. `keep` says
-- of either end how many jobs are kept and for how many ms, and how many dead letters: "failed:ms:completed:ms:letters".
-- Returns the ids of jobs that are no longer kept; nil if it did not end.
local function end_parent(base, now, cap, id, lane, keep, how, body)
  local key, set = base .. ':job:' .. id, base .. ':' .. how
  if redis.call('ZREM', base .. ':waiting_children', id) == 0 then
    return nil -- it is being removed
  end
  local failed, failed_ms, completed, completed_ms, letters = string.match(keep, '^(%d+):(%d+):(%d+):(%d+):(%d+)')
  local count, age = tonumber(completed), completed_ms
  local fields = { 's', 'c', 'f', now }
  if how == 'failed' then
    count, age = tonumber(failed), failed_ms
    local letter = write_letter(base, letters, id, record_envelope(key) or '', body, lane, letter_bonds(base, id))
    fields = { 's', 'f', 'f', now, 'x', body, 'q', letter, 'fx', '1' }
  end
  redis.call('HSET', key, unpack(fields))
  count_up(base, how == 'failed' and 'minute_f' or 'minute_c', 1)
  publish(base, cap, how, { id })
  if how == 'failed' then
    publish(base, cap, 'dead', { id })
  end
  if count == 0 then
    return { id }
  end
  redis.call('ZADD', set, now, id)
  redis.call('HSET', base .. ':meta', how .. '_age', age)
  local excess = math.min(redis.call('ZCARD', set) - count, TRIM_PARENTS)
  local old = excess > 0 and redis.call('ZRANGE', set, 0, excess - 1) or {}
  if excess > 0 then
    redis.call('ZREMRANGEBYRANK', set, 0, excess - 1)
  end
  return old
end

-- Tells one parent of a child's end. Returns how that ends the parent itself, and with what, if it does.
local function tell_parent(base, now, cap, id, how, body, parent)
  local queue, parent_id, place, policy = unpack(parent)
  local parent_base = family_base(base, queue)
  local key, children_key = parent_base .. ':job:' .. parent_id, parent_base .. ':children:' .. parent_id
  local state, lane, due, keep = unpack(redis.call('HMGET', key, 's', 'p', 'u', 'fk'))
  -- A parent that has gone, or another job that bears its id by now, waits for nobody.
  if not state or redis.call('HGET', children_key, place) ~= child_name(base, parent_base, id) then
    return nil
  end
  local good = how == 'completed'
  local ending = not good and policy == 'r' and '-' or ENDINGS[how] .. body
  if redis.call('HSETNX', children_key, 'e' .. place, ending) == 0 then
    return nil
  end
  local open = redis.call('HINCRBY', key, 'fo', -1)
  if not good and policy == 'f' then
    redis.call('HINCRBY', key, 'ff', 1)
  end
  if state ~= 'w' then
    return nil
  end
  local outcome, err, old
  if not good and policy == 'f' then
    outcome, err = 'failed', child_failed(id, how, body)
  elseif open == 0 and string.sub(keep, -1) == '!' and (good or policy ~= 'c') then
    outcome, err = 'completed', ''
  elseif open == 0 or not good and policy == 'c' then
    start_parent(parent_base, now, cap, parent_id, lane, due)
    return nil
  else
    return nil
  end
  old = end_parent(parent_base, now, cap, parent_id, lane, keep, outcome, err)
  return old and { base = parent_base, id = parent_id, how = outcome, body = err, old = old }
end

-- A job has ended or goes. Returns those of its parents that end with it, as {base, id, how, body, old}: `old` are jobs that
-- are no longer kept.
local function leave_family(base, now, cap, id, how, body)
  local ended = {}
  local parents, had = unpack(redis.call('HMGET', base .. ':job:' .. id, 'fl', 'fn'))
  if parents and how ~= 'forgotten' then
    for _, parent in ipairs(cmsgpack.unpack(parents)) do
      ended[#ended + 1] = tell_parent(base, now, cap, id, how, body or '', parent)
    end
  end
  if had and (how == 'forgotten' or how == 'removed') then
    redis.call('UNLINK', base .. ':children:' .. id)
  end
  return ended
end

-- A job comes back to life: its place in each parent that waits, or has not completed, is open again. Returns those that wait
-- again, as {base, id, letter}, since it was the last one whose failure was theirs.
local function rejoin_family(base, id)
  local back = {}
  for _, parent in ipairs(parents_of(base, id)) do
    local queue, parent_id, place, policy = unpack(parent)
    local parent_base = family_base(base, queue)
    local key, children_key = parent_base .. ':job:' .. parent_id, parent_base .. ':children:' .. parent_id
    local state, letter, failed_by = unpack(redis.call('HMGET', key, 's', 'q', 'fx'))
    local ending = redis.call('HGET', children_key, 'e' .. place)
    if ending and (state == 'w' or state == 'f' or state == 'x') and redis.call('HGET', children_key, place) == child_name(base, parent_base, id) then
      redis.call('HDEL', children_key, 'e' .. place)
      redis.call('HINCRBY', key, 'fo', 1)
      if policy == 'f' and string.sub(ending, 1, 1) ~= 'c' and redis.call('HINCRBY', key, 'ff', -1) == 0 and failed_by then
        back[#back + 1] = { base = parent_base, id = parent_id, letter = letter }
      end
    end
  end
  return back
end

-- Whether `other` waits for the end of job `id`, however far above it stands.
local function is_above(base, id, other_base, other)
  local looked, todo = {}, { { base, id } }
  for _, job in ipairs(todo) do
    if job[1] == other_base and job[2] == other then
      return true
    end
    local name = job[1] .. '\0' .. job[2]
    if not looked[name] and #todo < ANCESTORS then
      looked[name] = true
      for _, parent in ipairs(parents_of(job[1], job[2])) do
        todo[#todo + 1] = { family_base(job[1], parent[1]), parent[2] }
      end
    end
  end
  return false
end

-- Which of the parents that a new child names are there and came with the same add (or asked for it).
local function willing_parents(base, family)
  local found = {}
  for _, parent in ipairs(family.p or {}) do
    local key = family_base(base, parent[1]) .. ':job:' .. parent[2]
    if string.find(redis.call('HGET', key, 'ft') or '', family.t, 1, true) then
      found[#found + 1] = parent
    end
  end
  return found
end

local function name_child(base, id, parents)
  for _, parent in ipairs(parents) do
    local parent_base = family_base(base, parent[1])
    redis.call('HSET', parent_base .. ':children:' .. parent[2], parent[3], child_name(base, parent_base, id))
  end
end

-- What the record of a new job says of its family; names it to its parents, which are willing.
local function join_family(base, id, family, fields)
  if family.p then
    name_child(base, id, family.p)
    extend(fields, { 'fl', cmsgpack.pack(family.p) })
  end
  if family.n then
    extend(fields, { 'fn', family.n, 'fo', family.n, 'ft', family.t, 'fk', family.k })
  end
end

-- A job that is there already stands for a new child: these parents wait for it too. One that has ended is told of at once;
-- one that waits for the parent itself, however far above, counts as failed; one that has gone (its unique key outlives it)
-- as removed. Returns as leave_family.
local function adopt(base, now, cap, id, family)
  local ended, key = {}, base .. ':job:' .. id
  for _, parent in ipairs(willing_parents(base, family)) do
    local state, result, err, known = unpack(redis.call('HMGET', key, 's', 'r', 'x', 'fl'))
    local parents, parent_base = known and cmsgpack.unpack(known) or {}, family_base(base, parent[1])
    name_child(base, id, { parent })
    if state == 'w' and is_above(parent_base, parent[2], base, id) then
      local why = cmsgpack.pack({ 'InvalidInput', 'it waits for its own child to end', '' })
      ended[#ended + 1] = tell_parent(base, now, cap, id, 'failed', why, parent)
    elseif not state then
      ended[#ended + 1] = tell_parent(base, now, cap, id, 'removed', '', parent)
    else
      parents[#parents + 1] = parent
      redis.call('HSET', key, 'fl', cmsgpack.pack(parents))
      local how = ENDED_STATES[state]
      if how then
        local body = how == 'completed' and result or how == 'failed' and err or ''
        ended[#ended + 1] = tell_parent(base, now, cap, id, how, body, parent)
      end
    end
  end
  return ended
end
