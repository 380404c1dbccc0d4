-- @needed by bound jobs only
-- @include lib/starts
-- Jobs with a key. One that waits in a lane or runs has one of its key's places (`places:<key>`: job id -> lane); what
-- more there is of its key is parked (lib/parking), so that it stands in nobody's way. A key has `weight` places in each
-- lane as of right; capacity that is idle beyond that goes to the keys in turn (lib/turns). `keys`: key -> how many jobs of
-- it have a place or are parked. `key_looks`: key -> when a tick is to look at it, since its rate holds it back until then.
local NO_LIMIT = 1000000000

local key_books, touched_keys, key_defaults = {}, {}, {} -- what this call has read, or changed

local function places_key(base, key)
  return base .. ':places:' .. key
end

local function parking_key(base, lane, key)
  return base .. ':parking:' .. lane .. ':' .. key
end

local function book_of(base, key)
  local name = base .. ':' .. key
  local book = key_books[name]
  if book then
    return book
  end
  local all = key_defaults[base]
  if not all then
    all = redis.call('HMGET', base .. ':meta', 'key_active', 'key_rate_max', 'key_rate_ms', 'key_weight')
    key_defaults[base] = all
  end
  local own = redis.call('HMGET', base .. ':key:' .. key, 'active', 'rate_max', 'rate_ms', 'weight', 'paused')
  book = {
    base = base, key = key, most = tonumber(own[1] or all[1]) or NO_LIMIT,
    rate_max = tonumber(own[2] or all[2]), rate_ms = tonumber(own[2] and own[3] or all[3]),
    weight = tonumber(own[4] or all[4]) or 1, paused = own[5] == '1',
    described = own[1] or own[2] or own[4] or own[5], used = redis.call('ZCARD', places_key(base, key)),
    in_lane = {}, parked = {}, turns = {}, started = 0, prepaid = 0,
  }
  key_books[name] = book
  return book
end

-- Something of the key has changed: `settle_keys` (lib/parking) sees to what follows from that.
local function touch(book)
  if not book.touched then
    book.touched = true
    touched_keys[#touched_keys + 1] = book
  end
end

-- Of a key whose jobs run one at a time, the one that waits for a retry keeps its place: nothing of the key overtakes it.
local function keeps_order(book)
  return book.most == 1
end

local function used_in(base, book, lane)
  if not book.in_lane[lane] then
    book.in_lane[lane] = book.used == 0 and 0 or redis.call('ZCOUNT', places_key(base, book.key), lane, lane)
  end
  return book.in_lane[lane]
end

local function parked_in(base, book, lane)
  if not book.parked[lane] then
    book.parked[lane] = redis.call('LLEN', parking_key(base, lane, book.key))
    if book.parked[lane] == 0 and not book.trimmed then
      book.turns[lane] = false -- without parked jobs it had no turn
    end
  end
  return book.parked[lane]
end

-- How many more of the key's jobs may start by its rate.
local function room_by_rate(base, book, now)
  if not book.rate_max then
    return NO_LIMIT
  end
  if not book.room then
    book.window = window_of(book.rate_ms)
    local used, oldest = starts_within(base .. ':key_starts:' .. book.key, book.window, now)
    book.room, book.next_at = math.max(book.rate_max - used, 0), (oldest or now) + book.window
  end
  return book.room
end

-- How many more of the key's jobs may have a place now.
local function free_places(base, book, now)
  return (book.paused or book.later) and 0 or math.max(math.min(book.most - book.used, room_by_rate(base, book, now)), 0)
end

local function count_jobs(base, book, by)
  if redis.call('ZINCRBY', base .. ':keys', by, book.key) == '0' and not book.described then
    redis.call('ZREM', base .. ':keys', book.key)
  end
end

local function take_place(base, book, lane, id)
  local in_lane = used_in(base, book, lane)
  redis.call('ZADD', places_key(base, book.key), lane, id)
  book.used, book.in_lane[lane], book.moved = book.used + 1, in_lane + 1, true
end

-- Returns whether the job had a place.
local function leave_place(base, book, lane, id)
  if redis.call('ZREM', places_key(base, book.key), id) == 0 then
    return false
  end
  book.used, book.moved = book.used - 1, true
  book.in_lane[lane] = book.in_lane[lane] and book.in_lane[lane] - 1
  touch(book)
  return true
end

-- A job that waits for its retry and keeps its place is bound for another lane.
local function move_place(base, book, lane, id, to)
  if leave_place(base, book, lane, id) then
    take_place(base, book, to, id)
  end
end

-- Whether a job that comes in may stand in its lane: its key has a place there, and none of its jobs is before it.
local function has_place(base, book, lane, now)
  return used_in(base, book, lane) < book.weight and parked_in(base, book, lane) == 0 and free_places(base, book, now) > 0
end
