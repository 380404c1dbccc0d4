-- @needed by bound jobs only
-- @include lib/counter
-- @include lib/wake
-- @include lib/record
-- @include lib/append
-- @include lib/places
-- @include lib/turns
-- Where a key's jobs wait that have no place: a list per lane, of numbers ("17", or "18:an-id" of a job with another id).
-- A record in state `p` says its number (`e`), its lane, and since when it waits (`kw`) if not since it was created. An item
-- that no record answers to was of a job that has gone.
local GONE = 1000 -- items of gone jobs that one look takes off an end of a list

local function item_of(id, number)
  return id == number and number or number .. ':' .. id
end

-- Returns the id of the job that an item stands for, if it is parked there, and since when it waits.
local function parked_job(base, lane, item)
  local number, id = string.match(item, '^(%d+):(.*)$')
  number, id = number or item, id or item
  local state, at, its_lane, since, created = unpack(redis.pcall('HMGET', base .. ':job:' .. id, 's', 'e', 'p', 'kw', 'c'))
  if state == 'p' and at == number and tonumber(its_lane) == lane then
    return id, since or created
  end
  return nil
end

local function park(base, book, lane, id, number, command)
  local count = redis.call(command, parking_key(base, lane, book.key), item_of(id, number))
  book.parked[lane] = count
  count_up(base, 'parked_' .. lane, 1)
  touch(book)
end

-- Gives the key's next parked job a place, at the end of its lane; false if there is none. If too many have gone, the next
-- tick looks on.
local function bring(base, book, lane, now)
  local gone = 0
  while parked_in(base, book, lane) > 0 do
    local id, since = parked_job(base, lane, redis.call('LPOP', parking_key(base, lane, book.key)))
    book.parked[lane] = book.parked[lane] - 1
    if id then
      local job_key = base .. ':job:' .. id
      local entry = append(base, base .. ':lane:' .. lane, next_number(base), 'j', id, 't', since or now)
      redis.call('HSET', job_key, 's', 'q', 'e', entry)
      redis.call('HDEL', job_key, 'kw')
      take_place(base, book, lane, id)
      count_up(base, 'parked_' .. lane, -1)
      return true
    end
    gone = gone + 1
    if gone == GONE then
      redis.call('ZADD', base .. ':key_looks', now, book.key)
      book.later = true
      return false
    end
  end
  return false
end

-- A job comes into the queue, and waits since `since`: into its lane if its key has a place, or still keeps one for it, and
-- else into the parking. Its record holds its envelope, or is given it now, in `fields`. Returns whether it is in its lane.
local function enter(base, now, key, id, lane, since, entry, fields)
  lane = tonumber(lane)
  local book, job_key = book_of(base, key), base .. ':job:' .. id
  local kept = not fields and book.used > 0 and redis.call('ZSCORE', places_key(base, key), id)
  if not kept then
    count_jobs(base, book, 1)
    if not has_place(base, book, lane, now) then
      local number = string.match(entry, '^%d+')
      redis.call('HSET', job_key, 's', 'p', 'e', number, unpack(fields or { 'p', lane, 'kw', since }))
      park(base, book, lane, id, number, 'RPUSH')
      return false
    end
    take_place(base, book, lane, id)
  end
  entry = append(base, base .. ':lane:' .. lane, entry, 'j', id, 't', since)
  redis.call('HSET', job_key, 's', 'q', 'e', entry, unpack(fields or { 'p', lane }))
  return true
end

-- Takes what gone jobs have left at both ends of a list off it.
local function trim_parking(base, book, lane)
  local list = parking_key(base, lane, book.key)
  for at, command in pairs({ [0] = 'LPOP', [-1] = 'RPOP' }) do
    for _ = 1, GONE do
      local item = redis.call('LINDEX', list, at)
      if not item or parked_job(base, lane, item) then
        break
      end
      redis.call(command, list)
    end
  end
  book.parked[lane], book.trimmed = nil, true
end

-- Sees to all that follows from what has changed: fills the places that keys have as of right, and puts each key where its
-- parked jobs are found. Returns whether a job may start now that could not before.
local function settle_keys(base, now)
  local opened = false
  for _, book in ipairs(touched_keys) do
    local its_base, may = book.base, false
    for lane = 1, 4 do
      while parked_in(its_base, book, lane) > 0 and used_in(its_base, book, lane) < book.weight
        and free_places(its_base, book, now) > 0 and bring(its_base, book, lane, now) do
        may = true
      end
    end
    may = queue_up(its_base, book, now) or may
    book.touched = nil
    if may and its_base ~= base then
      wake_unless_paused(its_base) -- a family may be of several queues
    end
    opened = opened or may and its_base == base
  end
  touched_keys = {}
  return opened
end

-- A job leaves the queue, or waits for its time outside of it: it leaves its place or its parking, if it had one. `in_place`:
-- the lists stay as they are, for somebody who goes through them.
local function leave(base, key, id, in_place)
  local book = book_of(base, key)
  local state, lane = unpack(redis.call('HMGET', base .. ':job:' .. id, 's', 'p'))
  lane = tonumber(lane)
  if leave_place(base, book, lane, id) then
    count_jobs(base, book, -1)
  elseif state == 'p' then
    count_up(base, 'parked_' .. lane, -1)
    redis.call('HDEL', base .. ':job:' .. id, 's', 'e', 'kw')
    count_jobs(base, book, -1)
    if not in_place then
      trim_parking(base, book, lane)
    end
    touch(book)
  end
end

-- The end of a bound job: see lib/bonds.
local function release_key(base, id)
  local key = redis.call('HGET', base .. ':job:' .. id, 'ky')
  if key then
    leave(base, key, id)
  end
end

-- An attempt has ended, and the job waits for its time: its place is free meanwhile, unless its key keeps order.
local function rest_key(base, id)
  local key = redis.call('HGET', base .. ':job:' .. id, 'ky')
  if key and not keeps_order(book_of(base, key)) then
    leave(base, key, id)
  end
end
