#!lua flags=allow-oom
-- drain: waiting jobs, and delayed ones if asked -> nothing; never active ones.
-- KEYS     1 queue base
-- ARGV     1 "1": delayed ones too  2 "" | the cutoff of the reply before  3 the cursor of the reply before, or ""
--          4 how many at most in this call  5 cap of the event stream
-- RETURNS  {cutoff ms, cursor ("end": nothing is left), how many went in this call}
-- RACES    tick (claim): whichever runs first wins. Jobs added after the first call stay.
-- @include lib/clock
-- @include lib/events
-- @include lib/entry
-- @include lib/spare
-- @include lib/lane
-- @include lib/discard
-- @include lib/sound
local base, delayed_too, cutoff, cursor = KEYS[1], ARGV[1] == '1', tonumber(ARGV[2]), ARGV[3]
local limit, cap = tonumber(ARGV[4]), ARGV[5]
sound(base, limit)
local now = now_ms()
cutoff = cutoff or now
local ids, more = {}, ''
local waiting = cursor == '' and '0' or string.match(cursor, '^w(.+)$')
if waiting then
  local from
  ids, from = discard_waiting(base, now, cap, cutoff, limit, tonumber(waiting))
  more = from and 'w' .. from or delayed_too and '0' or nil
else
  local from
  ids, from = discard_delayed(base, now, cap, cutoff, limit, tonumber(cursor))
  more = from and tostring(from) or nil
end
publish(base, cap, 'removed', ids)
if not more then
  publish(base, cap, 'drained', { '' })
end
return { string.format('%.0f', cutoff), more or 'end', #ids }
