#!lua flags=no-writes
-- dead_letters: reads dead letters, the oldest or the newest first.
-- KEYS     1 queue base
-- ARGV     1 "" | the cursor of the reply before  2 how many at most  3 "1": the newest first
-- RETURNS  {cursor ("": that was all), {letter, job id, lane, envelope, error, 1 if its job's record is there | 0} …};
--          ends early after some megabytes
-- RACES    none: it only reads.
-- @include lib/lane
local base, cursor, count, reversed = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local BYTES = 4194304
local found, bytes, at = {}, 0, cursor
local first = not reversed and cursor ~= '' and '(' .. cursor or '-'
local last = reversed and cursor ~= '' and '(' .. cursor or '+'
local whole = each_entry(base .. ':dead', first, last, reversed, function(letter, parts)
  if #found >= count or bytes > BYTES then
    return false
  end
  at = letter
  if not (parts.j and parts.d and parts.x and parts.p) then
    return true -- not written by streamq
  end
  bytes = bytes + #parts.d + #parts.x
  local there = redis.call('HGET', base .. ':job:' .. parts.j, 'q') == letter
  found[#found + 1] = { letter, parts.j, parts.p, parts.d, parts.x, there and 1 or 0 }
  return true
end)
return { whole and '' or at, unpack(found) }
