-- @include lib/key_claims
-- claim: waiting -> active, lane by lane, oldest first.
local HISTORY = { 'a', 'k', 'i', 'n', 'e', 'fn', 'ky', 'uk', 'uw', 's' }
-- ... and the envelope's first pieces: mostly all of it.
local HISTORY_AND_ENVELOPE = { 'a', 'k', 'i', 'n', 'e', 'fn', 'ky', 'uk', 'uw', 's', 'd', 'd1', 'd2' }
local HELD_JOBS = 20000 -- more than a worker can hold: what is not listed counts as lost

local function read_lane(turn, worker, lane, count, from)
  local key = lane_key(turn, lane)
  local found = redis.pcall('XREADGROUP', 'GROUP', 'w', worker, 'COUNT', count, 'STREAMS', key, from)
  if found and found.err then
    -- The group is not there: a new queue, or somebody destroyed it. Id 0 finds the jobs that wait.
    redis.call('XGROUP', 'CREATE', key, 'w', '0', 'MKSTREAM')
    found = redis.call('XREADGROUP', 'GROUP', 'w', worker, 'COUNT', count, 'STREAMS', key, from)
  end
  return found and found[1][2] or {}
end

-- Sequences that look like UTF-8 and are none, and then those that are, the longest first.
local NO_TEXT = { '\224[\128-\159]', '\237[\160-\191]', '\240[\128-\143]', '\244[\144-\191]' }
local TEXT = { '[\240-\244][\128-\191][\128-\191][\128-\191]', '[\224-\239][\128-\191][\128-\191]', '[\194-\223][\128-\191]' }

-- Whether an id is text, as every reader takes it to be.
local function is_text(id)
  if not string.find(id, '[\128-\255]') then
    return true
  end
  for _, pattern in ipairs(NO_TEXT) do
    if string.find(id, pattern) then
      return false
    end
  end
  for _, pattern in ipairs(TEXT) do
    id = string.gsub(id, pattern, ' ')
  end
  return not string.find(id, '[\128-\255]')
end

-- Whether somebody else wrote this entry: it is not numbered as ours are, or the record that it belongs to (whose entry is
-- `recorded`) points at another one, or says that its job stands in no lane. A record may have been lost; then the id has
-- to be one that can be told of at least.
local function is_foreign(entry, number, parts, recorded, state)
  if state and state ~= 'q' then
    return true
  end
  if recorded then
    return recorded ~= entry or parts.j and not is_text(parts.j)
  end
  return not number or parts.j and (parts.j == '' or #parts.j > 256 or string.find(parts.j, '[^%w%p ]')) ~= nil
end

local RECORDED = { p = true, d = true, w = true, c = true, f = true, x = true, q = true }

-- Adds to `known` what the record says of an entry's job; returns its id and since when it waited, or nil if there is
-- nothing to run. `starts`: it was claimed just now, and may have to step back.
local function recall(turn, lane, entry, fields, known, starts)
  local parts = parts_of(fields)
  local number = string.match(entry, '^(%d+)%-0$')
  local id = parts.j or number
  local history = redis.call('HMGET', job_key(turn, id or entry), unpack(parts.d and HISTORY or HISTORY_AND_ENVELOPE))
  if is_foreign(entry, number, parts, history[5], history[10]) then
    if history[5] == entry and not RECORDED[history[10]] then
      error('its state is none', 0) -- the entry is its own
    end
    bury(turn, lane, entry, parts)
    return nil
  end
  local envelope = parts.d or join_pieces(job_key(turn, id), history[11], history[12], history[13])
  if not envelope then
    redis.call('XACK', lane_key(turn, lane), 'w', entry)
    redis.call('XDEL', lane_key(turn, lane), entry)
    fail(turn, lane, id, { j = id, d = '' }, payload_lost(), 0, 0, {})
    return nil
  end
  local book = starts and turn.bound and history[7] and book_of(turn.base, history[7])
  if book and not may_start(turn, book) then
    step_back(turn, book, lane, id, entry, parts.t)
    return nil
  end
  if turn.bound and history[9] == UNTIL_START then
    start_bound(turn.base, turn.now, id, history[8])
  end
  local cursor = turn.stepped and redis.call('HGET', turn.base .. ':steps:' .. id, 'c') or ''
  extend(known, {
    entry, id, envelope, history[1] or 0, history[2] or 0, history[3] or 0, history[4] or 0, history[6] or 0, cursor,
  })
  return id, parts.t or ''
end

-- As `recall`, whatever the record holds.
local function recall_guarded(turn, lane, entry, fields, known, starts)
  local recalled, found, since = pcall(recall, turn, lane, entry, fields, known, starts)
  if recalled then
    return found, since
  end
  local why, parts = why_of(found), parts_of(fields)
  redis.call('XACK', lane_key(turn, lane), 'w', entry)
  redis.call('XDEL', lane_key(turn, lane), entry)
  give_up(turn, lane, parts.j or string.match(entry, '^%d+'), parts, why)
  return nil
end

-- Takes over claims that were given back unstarted: they were the lane's front.
local function take_spare(turn, worker, lane, count)
  local key = lane_key(turn, lane)
  local pending = redis.pcall('XPENDING', key, 'w', '-', '+', count, SPARE)
  if pending.err or #pending == 0 then
    return {}
  end
  local ids = {}
  for at, item in ipairs(pending) do
    ids[at] = item[1]
  end
  turn.spare = math.max(turn.spare - #ids, 0)
  return redis.call('XCLAIM', key, 'w', worker, 0, unpack(ids))
end

-- The next entries of a lane: what was given back, then what nobody has claimed yet.
local function next_entries(turn, worker, lane, count)
  if turn.spare == 0 then
    return read_lane(turn, worker, lane, count, '>')
  end
  local entries = take_spare(turn, worker, lane, count)
  if #entries < count then
    extend(entries, read_lane(turn, worker, lane, count - #entries, '>'))
  end
  return entries
end

-- Adds those of a lane's entries that start to `claimed`, and tells how many. That is flat, four values a job: a table of
-- tables takes Redis three times as long to turn into a reply.
local function take(turn, lane, entries, claimed, known)
  local from = #claimed
  local at = from
  for _, item in ipairs(entries) do
    local entry, fields, id, envelope, since = item[1], item[2], nil, '', nil
    if fields[1] == 'd' and fields[3] == 't' and not fields[5] and string.sub(entry, -2) == '-0' then
      -- A job without a record: its entry says it all.
      id, envelope, since = string.sub(entry, 1, -3), fields[2], fields[4]
    else
      id, since = recall_guarded(turn, lane, entry, fields, known, true)
    end
    if id then
      claimed[at + 1], claimed[at + 2], claimed[at + 3], claimed[at + 4] = lane, entry, envelope, since
      at = at + 4
      tell(turn, 'active', id)
    end
  end
  return (at - from) / 4
end

-- Returns what was claimed, what records add to that, and how many jobs that is.
local function claim(turn, worker, want)
  local claimed, known, count = {}, {}, 0
  for lane = 1, 4 do
    if count >= want then
      break
    end
    local asked = want - count
    local found = next_entries(turn, worker, lane, asked)
    count = count + take(turn, lane, found, claimed, known)
    -- Those that stepped back, or were no jobs, left room; and what no entry of the lane takes goes to the keys in turn.
    while count < want and (turn.bound or turn.spare > 0) do
      local short = want - count
      if #found < asked and not (turn.bound and top_up(turn, lane, short) > 0) then
        break
      end
      asked = short
      found = next_entries(turn, worker, lane, asked)
      count = count + take(turn, lane, found, claimed, known)
    end
  end
  if count < want then
    turn.spare = given_back(turn) -- all lanes were looked through, so mostly there are none
  end
  if turn.bound then
    note_key_starts(turn)
  end
  return claimed, known, count
end

-- Lists what this worker holds, in the same form; adds to `known`.
local function list_held(turn, worker, known)
  local held = {}
  for lane = 1, 4 do
    for _, item in ipairs(read_lane(turn, worker, lane, HELD_JOBS, '0')) do
      local id, since = nil, nil
      if item[2] then
        id, since = recall_guarded(turn, lane, item[1], item[2], known)
      else
        redis.call('XACK', lane_key(turn, lane), 'w', item[1])
      end
      if id then
        extend(held, { lane, item[1], '', since })
      end
    end
  end
  return held
end
