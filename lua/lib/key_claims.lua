-- @needed by bound jobs only
-- @include lib/parking
-- What a claim has to do with keys: whose job may start, and who gets the capacity that is left once a lane is empty.
local LOOK_KEYS, AUDIT_KEYS, AUDIT_PLACES = 200, 50, 20

-- A claimed job may not start after all: its key is paused, over its rate, or over a limit that was lowered. It goes to the
-- front of its key's parking, once all that this call claims is known, so that several keep their order.
local function step_back(turn, book, lane, id, entry, since)
  local number = string.match(entry, '^%d+')
  redis.call('XACK', lane_key(turn, lane), 'w', entry)
  redis.call('XDEL', lane_key(turn, lane), entry)
  redis.call('HSET', job_key(turn, id), 's', 'p', 'e', number, 'kw', since)
  leave_place(turn.base, book, lane, id)
  book.back = book.back or {}
  table.insert(book.back, 1, { lane, id, number })
end

-- Whether a job that was claimed may start; it is counted if so.
local function may_start(turn, book)
  if book.prepaid > 0 then
    book.prepaid = book.prepaid - 1
  elseif book.paused or book.used > book.most or room_by_rate(turn.base, book, turn.now) == 0 then
    return false
  else
    book.room = book.room and book.room - 1
  end
  book.started = book.started + 1
  return true
end

-- Gives up to `want` places to the parked jobs of a lane, key by key: who has least for its weight comes first. Returns how
-- many entries that brought into the lane.
local function top_up(turn, lane, want)
  local brought = 0
  while brought < want do
    local first, _, _, second = unpack(redis.call('ZRANGE', turn.base .. ':turns:' .. lane, 0, 1, 'WITHSCORES'))
    if not first then
      break
    end
    local book, upto, before = book_of(turn.base, first), tonumber(second) or NO_LIMIT, brought
    while brought < want and free_places(turn.base, book, turn.now) > 0 and bring(turn.base, book, lane, turn.now) do
      brought = brought + 1
      book.prepaid, book.room = book.prepaid + 1, book.room and book.room - 1
      if turn_score(book, turn.now) > upto then
        break
      end
    end
    queue_up(turn.base, book, turn.now)
    if brought == before then
      redis.call('ZREM', turn.base .. ':turns:' .. lane, first) -- whoever wrote that turn: it must not be looked at for ever
    end
  end
  return brought
end

-- Ends a claim: notes what started of keys that have a rate, and parks what stepped back.
local function note_key_starts(turn)
  for _, book in pairs(key_books) do
    if book.rate_max and book.started > 0 then
      note_start(turn.base .. ':key_starts:' .. book.key, turn.now, book.started, book.window)
    end
    for _, job in ipairs(book.back or {}) do
      park(turn.base, book, job[1], job[2], job[3], 'LPUSH')
    end
    book.back = nil
  end
  settle_keys(turn.base, turn.now)
end

-- Keys whose rate may allow another start by now.
local function look_at_keys(turn)
  local looks_key = turn.base .. ':key_looks'
  local due = redis.call('ZRANGEBYSCORE', looks_key, '-inf', turn.now, 'LIMIT', 0, LOOK_KEYS)
  for _, key in ipairs(due) do
    touch(book_of(turn.base, key))
  end
  in_thousands('ZREM', looks_key, due)
end

-- Places whose job has gone: a worker of a version that knows no keys may have settled it. Looks at a few keys each time.
local function audit_keys(turn)
  local from = tonumber(redis.call('HGET', turn.base .. ':meta', 'key_audit')) or 0
  local keys = redis.call('ZRANGE', turn.base .. ':keys', from, from + AUDIT_KEYS - 1)
  for _, key in ipairs(keys) do
    local book = book_of(turn.base, key)
    for _, id in ipairs(redis.call('ZRANDMEMBER', places_key(turn.base, key), AUDIT_PLACES)) do
      local state, its_key, lane = unpack(redis.pcall('HMGET', job_key(turn, id), 's', 'ky', 'p')) -- an error has no items
      if its_key ~= key or state ~= 'q' and state ~= 'd' then
        leave_place(turn.base, book, tonumber(lane) or 0, id)
        count_jobs(turn.base, book, -1)
      end
    end
    touch(book)
  end
  redis.call('HSET', turn.base .. ':meta', 'key_audit', #keys == AUDIT_KEYS and from + AUDIT_KEYS or 0)
end
