#!lua flags=no-writes
-- schedules: reads schedules.
-- KEYS     1 queue base
-- ARGV     1 … schedule ids, 200 at the most
-- RETURNS  {now ms, for each id: {field, value …}, empty if it is unknown}
-- RACES    none: it only reads.
-- @include lib/clock
-- @include lib/schedules
local base = KEYS[1]
local reply = { now_ms() }
for at, id in ipairs(ARGV) do
  reply[at + 1] = redis.call('HGETALL', schedule_key(base, id))
end
return reply
