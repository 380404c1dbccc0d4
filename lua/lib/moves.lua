-- @include lib/counter
-- Where an active job can go. Its entry is off the pending list already; `parts` is what the entry held, `fields` what
-- else its record is to be given. An entry that does not name its job is that of one without bonds.

local function payload_lost()
  return cmsgpack.pack({ 'PayloadLost', 'the entry holds no job', '' })
end

-- Puts what somebody else has written into a lane aside, under the name of its entry: it may name a job that is not its own.
local function bury(turn, lane, entry, parts)
  local key, err = lane_key(turn, lane), cmsgpack.pack({ 'ForeignEntry', 'the entry was not written by streamq', '' })
  write_letter(turn.base, turn.dead_cap, entry, parts.d or '', err, lane)
  redis.call('XACK', key, 'w', entry)
  redis.call('XDEL', key, entry)
  tell(turn, 'dead', entry)
end

-- To the end of its lane, under a new entry.
local function requeue(turn, lane, id, parts, fields)
  redis.call('HSET', job_key(turn, id), 'p', lane) -- first, since it may be no record: then no entry is to stand
  local entry = next_number(turn.base)
  if parts.d then
    entry = append(turn.base, lane_key(turn, lane), entry, 'j', id, 't', turn.now_text, 'd', parts.d)
  else
    entry = append(turn.base, lane_key(turn, lane), entry, 'j', id, 't', turn.now_text)
  end
  redis.call('HSET', job_key(turn, id), unpack(extend(fields, { 's', 'q', 'e', entry })))
end

local function delay(turn, lane, id, parts, delay_ms, fields)
  local due = turn.now + delay_ms
  extend(fields, { 's', 'd', 'u', due, 'p', lane })
  if parts.d then
    add_envelope(fields, parts.d)
  end
  redis.call('HSET', job_key(turn, id), unpack(fields))
  redis.call('ZADD', turn.base .. ':delayed', due, id)
  if turn.bound and parts.j then
    rest_key(turn.base, id)
  end
end

local function complete(turn, lane, id, parts, result, keep_count, keep_age_ms, fields)
  local at = #fields
  fields[at + 1], fields[at + 2], fields[at + 3], fields[at + 4] = 's', 'c', 'f', turn.now_text
  fields[at + 5], fields[at + 6] = 'p', lane
  if result ~= '' then
    fields[at + 7], fields[at + 8] = 'r', result
  end
  if parts.d then
    add_envelope(fields, parts.d)
  end
  redis.call('HSET', job_key(turn, id), unpack(fields))
  end_job(turn, 'completed', id, keep_count, keep_age_ms, result, parts.j)
end

-- Failed for good.
local function fail(turn, lane, id, parts, err, keep_count, keep_age_ms, fields)
  local key = job_key(turn, id)
  local envelope = parts.d or record_envelope(key) or ''
  local bonds = turn.bound and parts.j and letter_bonds(turn.base, id) or nil
  local letter = write_letter(turn.base, turn.dead_cap, id, envelope, err, lane, bonds)
  if keep_count > 0 then
    extend(fields, { 's', 'f', 'f', turn.now_text, 'x', err, 'p', lane, 'q', letter })
    if parts.d then
      add_envelope(fields, parts.d)
    end
    redis.call('HSET', key, unpack(fields))
  end
  end_job(turn, 'failed', id, keep_count, keep_age_ms, err, parts.j)
  tell(turn, 'failed', id)
  tell(turn, 'dead', id)
end

-- Cancelled, for this reason. It waits, or ran: no dead letter tells of it.
local function cancel(turn, lane, id, parts, reason, keep_count, keep_age_ms, fields)
  if keep_count > 0 then
    extend(fields, { 's', 'x', 'f', turn.now_text, 'p', lane, 'w', reason })
    if parts.d then
      add_envelope(fields, parts.d)
    end
    redis.call('HSET', job_key(turn, id), unpack(fields))
  end
  count_up(turn.base, 'cancelled', 1)
  end_job(turn, 'cancelled', id, keep_count, keep_age_ms, reason, true)
  tell(turn, 'cancelled', id)
end
