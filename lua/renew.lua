#!lua flags=allow-oom
-- renew: a live worker's lease -> longer.
-- KEYS     1 queue base
-- ARGV     1 worker  2 lease in ms
-- RETURNS  {1, entry, reason, … of the jobs that it is to interrupt, since they were cancelled}; {0} if the lease was lost
--          (its jobs went to others)
-- RACES    tick (sweep): once the worker is swept this does not bring it back; its next tick does. A job that is to be
--          interrupted is told each time, until it has ended.
-- @include lib/clock
-- @include lib/lease
local base, worker, lease_ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
if not redis.call('ZSCORE', base .. ':workers', worker) then
  return { 0 }
end
renew_lease(base, worker, now_ms(), lease_ms)
local reply = { 1 }
local asked = redis.call('EXISTS', base .. ':cancels') == 1 and redis.call('HGETALL', base .. ':cancels') or {}
for at = 1, #asked, 2 do
  local holder, _, reason = unpack(cmsgpack.unpack(asked[at + 1]))
  if holder == worker then
    reply[#reply + 1], reply[#reply + 2] = asked[at], reason
  end
end
return reply
