-- settle: active -> completed | delayed | failed | cancelled | waiting | waiting_children. XACK counts the entries that were
-- still held. Returns the positions (from 0) of the outcomes that were stale, and how many counted.
local PER_OUTCOME = 9

-- How the last attempts failed, one field each: an operator may ask why the first one did when the third did otherwise.
local ERRORS_KEPT = 10

local function keep_error(turn, id, attempt, err, fields)
  extend(fields, { 'x', err, 'x' .. attempt, err })
  if attempt > ERRORS_KEPT then
    redis.call('HDEL', job_key(turn, id), 'x' .. (attempt - ERRORS_KEPT))
  end
end

local function settle_one(turn, kind, lane, id, parts, body, a, b, fields)
  if kind == 'done' then
    complete(turn, lane, id, parts, body, a, tonumber(b), fields)
    tell(turn, 'completed', id)
  elseif kind == 'fail' then
    fail(turn, lane, id, parts, body, a, tonumber(b), fields)
  elseif kind == 'cancel' then
    cancel(turn, lane, id, parts, body, a, tonumber(b), fields)
  elseif kind == 'wait' then
    spawn(turn, lane, id, parts, body, a, b, fields)
  else
    if kind == 'retry' then
      keep_error(turn, id, tonumber(fields[2]), body, fields)
      tell(turn, 'retrying', id)
    elseif b ~= '' then
      redis.call('HINCRBY', job_key(turn, id), b, 1)
    end
    if kind == 'hold' then
      redis.call('HSET', turn.base .. ':meta', 'hold_until', turn.now + a)
      turn.hold_until = turn.now + a
    end
    if a == 0 then
      requeue(turn, lane, id, parts, fields)
    else
      delay(turn, lane, id, parts, a, fields)
      tell(turn, 'delayed', id)
    end
  end
end

-- As `settle_one`, whatever the record holds: if that stands in the way it goes, and the job ends without it.
local function settle_guarded(turn, kind, lane, id, parts, body, a, b, fields)
  local size = #fields
  local settled, err = pcall(settle_one, turn, kind, lane, id, parts, body, a, b, fields)
  if settled then
    return
  end
  why_of(err)
  parts.d = envelope_of(turn, id, parts)
  drop_record(turn, id, body)
  for at = #fields, size + 1, -1 do
    fields[at] = nil
  end
  settle_one(turn, kind, lane, id, parts, body, a, b, fields)
end

-- Whether an entry of ours, "<number>-0", stands before another id with one digit behind its number: as texts they compare
-- at a fraction of what it takes to make numbers of them.
local function is_before(entry, id)
  return #entry < #id or #entry == #id and entry < id
end

local function ends_of(entries)
  local low, high = entries[1], entries[1]
  for _, entry in ipairs(entries) do
    if is_before(entry, low) then
      low = entry
    elseif is_before(high, entry) then
      high = entry
    end
  end
  return low, high
end

-- Reads the entries of a lane, as parts by entry. Jobs are claimed in a row, so they mostly end in a row too: one range
-- finds most of them, at a fraction of what reading each would cost.
local function read_entries(key, entries)
  local found = {}
  if #entries >= 4 then
    local low, high = ends_of(entries)
    for _, item in ipairs(redis.call('XRANGE', key, low, high, 'COUNT', #entries + 50)) do
      local fields = item[2]
      found[item[1]] = { [fields[1]] = fields[2], [fields[3] or ''] = fields[4], [fields[5] or ''] = fields[6] }
    end
  end
  for _, entry in ipairs(entries) do
    found[entry] = found[entry] or read_entry(key, entry) or {}
  end
  return found
end

-- Ended entries go. Mostly all entries before the oldest one that is still pending have ended: one trim takes them, at a
-- fraction of what deleting each would cost. (What is not delivered yet stands behind everything that is pending.)
local function drop_entries(key, entries)
  local rest = entries
  if #entries >= 8 then
    local oldest = redis.call('XPENDING', key, 'w')[2]
    rest = {}
    if not oldest then
      local _, high = ends_of(entries)
      redis.call('XTRIM', key, 'MINID', '=', string.sub(high, 1, -2) .. '1')
    else
      redis.call('XTRIM', key, 'MINID', '=', oldest)
      local is_ours = string.sub(oldest, -2, -2) == '-'
      for _, entry in ipairs(entries) do
        if not (is_ours and is_before(entry, oldest)) then
          rest[#rest + 1] = entry
        end
      end
    end
  end
  in_thousands('XDEL', key, rest)
end

-- Of many jobs that complete in one call, only the last ones outlive it, if all keep the same number: returns how many
-- of the first need no record.
local function passing(outcomes, fresh)
  local keep, completed = nil, 0
  for _, at in ipairs(fresh) do
    if outcomes[at] == 'done' then
      keep = keep or outcomes[at + 5]
      completed = completed + 1
      if outcomes[at + 5] ~= keep then
        return 0
      end
    end
  end
  return keep and math.max(completed - tonumber(keep), 0) or 0
end

-- A claim that never started goes back to the front of its lane: it keeps its entry, and `spare` holds it, from whom
-- claims are taken first. Returns whether the worker still held it.
local function give_back(turn, key, entry, worker)
  if #redis.call('XPENDING', key, 'w', entry, entry, 1, worker) == 0 then
    return false
  end
  redis.call('XCLAIM', key, 'w', SPARE, 0, entry, 'JUSTID')
  turn.spare = turn.spare + 1
  turn.returned = true
  return true
end

-- Makes the outcome of a job that is to be cancelled one that says so.
local function end_as_asked(turn, outcomes, at, asked)
  if outcomes[at] == 'return' then
    local made = redis.pcall('HGET', job_key(turn, outcomes[at + 3]), 'a') -- it does not say
    outcomes[at + 8] = tonumber(made) and made or '0'
  end
  local _, reason, keep_count, keep_age_ms = unpack(asked)
  outcomes[at], outcomes[at + 4] = 'cancel', reason
  outcomes[at + 5], outcomes[at + 6] = tostring(keep_count), tostring(keep_age_ms)
end

-- Acknowledges entries of one lane in one call. Returns nil if all were still held, else a table by entry that says how
-- many outcomes may count: an entry goes in the call that takes its job from a worker, so one that is there was held. One
-- that is not there, though its job's record still points at it, was deleted by somebody else while it was held.
local function acknowledge(turn, lane, entries, ids)
  local key = lane_key(turn, lane)
  local held = 0
  for at = 1, #entries, 1000 do
    held = held + redis.call('XACK', key, 'w', unpack(entries, at, math.min(at + 999, #entries)))
  end
  if held == #entries then
    return nil
  end
  local fresh = {}
  for at, entry in ipairs(entries) do
    local was_held = held > 0 and read_entry(key, entry)
    if held > 0 and not was_held then
      local state, its_entry = unpack(redis.pcall('HMGET', job_key(turn, ids[at]), 's', 'e'))
      was_held = state == 'q' and its_entry == entry -- the record of a job that has ended still names its last one
    end
    fresh[entry] = was_held and 1 or 0
  end
  return fresh
end

-- Splits the outcomes: returns the positions in `outcomes` of those that count, the positions (from 0) of the stale
-- ones, how many claims were given back, by lane the entries that have ended, and by position whether the job is plain:
-- it had no record when it was claimed, so it has no bonds either. Such a job is named by its entry alone.
local function receive(turn, outcomes, from, worker)
  local fresh, stale, returned, plain = {}, {}, 0, {}
  local ended, ids, held, rest, returns = { {}, {}, {}, {} }, { {}, {}, {}, {} }, {}, {}, {}
  for at = from, #outcomes, PER_OUTCOME do
    local lane, entry = tonumber(outcomes[at + 1]), outcomes[at + 2]
    if outcomes[at + 3] == '' then
      outcomes[at + 3], plain[at] = string.sub(entry, 1, -3), true
    end
    if outcomes[at] ~= 'return' or turn.cancels and request_of(turn.base, worker, entry) then
      local position = #ended[lane] + 1
      ended[lane][position], ids[lane][position] = entry, outcomes[at + 3]
      rest[#rest + 1] = at
    else
      returns[#returns + 1] = at
    end
  end
  local all = true
  for lane = 1, 4 do
    held[lane] = acknowledge(turn, lane, ended[lane], ids[lane])
    all = all and not held[lane]
  end
  for _, at in ipairs(returns) do -- an end counts before a claim of the same entry that never started
    if give_back(turn, lane_key(turn, outcomes[at + 1]), outcomes[at + 2], worker) then
      returned = returned + 1
      if turn.bound and not plain[at] then
        pcall(return_bound, turn.base, outcomes[at + 3]) -- whoever claims it next sees to a record that is broken
      end
    else
      stale[#stale + 1] = (at - from) / PER_OUTCOME
    end
  end
  if all then
    return rest, stale, returned, ended, plain
  end
  ended = { {}, {}, {}, {} }
  for _, at in ipairs(rest) do
    local lane, entry = tonumber(outcomes[at + 1]), outcomes[at + 2]
    if not held[lane] or held[lane][entry] > 0 then
      fresh[#fresh + 1] = at
      ended[lane][#ended[lane] + 1] = entry
      if held[lane] then
        held[lane][entry] = 0
      end
    else
      stale[#stale + 1] = (at - from) / PER_OUTCOME
    end
  end
  return fresh, stale, returned, ended, plain
end

local function settle(turn, outcomes, from, worker)
  if from > #outcomes then
    return {}, 0
  end
  turn.cancels = redis.call('EXISTS', cancels_key(turn.base, worker)) == 1
  local fresh, stale, returned, ended, plain = receive(turn, outcomes, from, worker)
  local wanted = { {}, {}, {}, {} }
  for _, at in ipairs(turn.cancels and fresh or {}) do
    local asked = request_of(turn.base, worker, outcomes[at + 2])
    if asked then
      forget_request(turn.base, worker, outcomes[at + 2])
      end_as_asked(turn, outcomes, at, asked)
    end
  end
  local pass = passing(outcomes, fresh)
  for _, at in ipairs(fresh) do
    if outcomes[at] == 'done' and pass > 0 then
      pass = pass - 1
      outcomes[at + 5] = '0'
    end
    if outcomes[at] ~= 'done' or outcomes[at + 5] ~= '0' then
      local entries = wanted[tonumber(outcomes[at + 1])]
      entries[#entries + 1] = outcomes[at + 2]
    end
  end
  local parts_of = {}
  for lane = 1, 4 do
    parts_of[lane] = #wanted[lane] > 0 and read_entries(lane_key(turn, lane), wanted[lane])
  end
  for _, at in ipairs(fresh) do
    local kind, lane, entry, id, body, a, b, started, attempts = unpack(outcomes, at, at + PER_OUTCOME - 1)
    if kind == 'done' and a == '0' then
      -- Nothing is kept: the entry need not be read.
      local ended, err = pcall(end_job, turn, 'completed', id, 0, 0, body, not plain[at])
      if not ended then
        why_of(err)
        drop_record(turn, id, body)
      end
      tell(turn, 'completed', id)
    else
      local parts = parts_of[tonumber(lane)][entry]
      if not parts.d and not plain[at] then
        parts.j = parts.j or id -- somebody deleted the entry; what the job is bound to is let go all the same
      end
      local fields = { 'a', attempts }
      if started ~= '0' then
        fields[3], fields[4] = 'b', started
      end
      if not parts.j then
        -- A record is made: it keeps what the entry knew.
        fields[#fields + 1], fields[#fields + 2] = 'c', parts.t or turn.now_text
      end
      settle_guarded(turn, kind, lane, id, parts, body, tonumber(a), b, fields)
    end
  end
  for lane = 1, 4 do
    drop_entries(lane_key(turn, lane), ended[lane])
  end
  return stale, returned + #fresh
end
