#!lua flags=allow-oom
-- clean: old jobs of one state, waiting | delayed | waiting_children | completed | failed | cancelled -> nothing; never
--        active ones.
-- KEYS     1 queue base
-- ARGV     1 state  2 grace in ms  3 "" | the cutoff of the reply before  4 the cursor of the reply before, or 0
--          5 how many at most in this call  6 "1" if this call is the last one anyway  7 cap of the event stream
-- RETURNS  {cutoff ms, cursor ("": nothing is left), ids …}
-- RACES    tick (claim): whichever runs first wins; a claimed job is active and stays. Jobs that come in or end between
--          two calls are younger than the cutoff.
-- @include lib/clock
-- @include lib/events
-- @include lib/entry
-- @include lib/spare
-- @include lib/lane
-- @include lib/discard
-- @include lib/sound
local base, state, grace_ms, cutoff, from = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local limit, last, cap = tonumber(ARGV[5]), ARGV[6] == '1', ARGV[7]
sound(base, from, limit, grace_ms)
local now = now_ms()
cutoff = cutoff or now - grace_ms
local ids, cursor
if state == 'waiting' then
  ids, cursor = discard_waiting(base, now, cap, cutoff, limit, from)
elseif state == 'delayed' then
  ids, cursor = discard_delayed(base, now, cap, cutoff, limit, from)
else
  ids = discard_ended(base, now, cap, state, cutoff, limit)
  cursor = #ids == limit and 0 or nil
end
publish(base, cap, 'removed', ids)
if not cursor or last and #ids == limit then -- a last call that came to a stop before is gone on with
  publish(base, cap, 'cleaned', { '' })
end
return { string.format('%.0f', cutoff), cursor and tostring(cursor) or '', unpack(ids) }
