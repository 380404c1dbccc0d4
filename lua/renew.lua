#!lua flags=allow-oom
-- renew: a live worker's lease -> longer.
-- KEYS     1 queue base
-- ARGV     1 worker  2 lease in ms
-- RETURNS  1, or 0 if the lease was lost (its jobs went to others)
-- RACES    tick (sweep): once the worker is swept this does not bring it back; its next tick does.
-- @include lib/clock
-- @include lib/lease
local base, worker, lease_ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
if not redis.call('ZSCORE', base .. ':workers', worker) then
  return 0
end
renew_lease(base, worker, now_ms(), lease_ms)
return 1
