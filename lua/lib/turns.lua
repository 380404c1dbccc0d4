-- @needed by bound jobs only
-- @include lib/places
-- @include lib/quick
-- Keys that have parked jobs and may have more places stand in `turns:<lane>`, by what they have for their weight: who has
-- least is served next, and of equals the one whose places changed longest ago.
local TIE, TIES = 0.00000000001, 1000000

local quick_turns = {} -- those that this call has seen to

local function take_turn(base, book, lane, score)
  local turns_key = base .. ':turns:' .. lane
  if not quick_turns[turns_key] then
    quick_turns[turns_key] = true
    make_quick(turns_key, redis.call('ZCARD', turns_key))
  end
  redis.call('ZADD', turns_key, book.moved and 'CH' or 'NX', score, book.key)
end

local function turn_score(book, now)
  return book.used / book.weight + now % TIES * TIE
end

-- Puts a key where its parked jobs are found: among the turns if it may have more places, among the looks if time alone
-- holds it back. Returns whether it may.
local function queue_up(base, book, now)
  local free, waits = free_places(base, book, now), false
  for lane = 1, 4 do
    local waiting = parked_in(base, book, lane) > 0
    local score = waiting and free > 0 and turn_score(book, now)
    waits = waits or waiting
    if score and score ~= book.turns[lane] then
      take_turn(base, book, lane, score)
    elseif not score and book.turns[lane] ~= false then
      redis.call('ZREM', base .. ':turns:' .. lane, book.key)
    end
    book.turns[lane] = score
  end
  if waits and not book.paused and room_by_rate(base, book, now) == 0 then
    redis.call('ZADD', base .. ':key_looks', book.next_at, book.key)
  end
  return waits and free > 0
end
