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
-- @include lib/cancels
local base, worker, lease_ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
if not redis.call('ZSCORE', base .. ':workers', worker) then
  return { 0 }
end
renew_lease(base, worker, now_ms(), lease_ms)
local reply = { 1 }
if redis.call('PEXPIRE', cancels_key(base, worker), CANCELS_MS) == 1 then
  local asked = redis.pcall('HGETALL', cancels_key(base, worker)) -- an error has no items
  for at = 1, #asked, 2 do
    local request = read_request(asked[at + 1])
    if request then
      reply[#reply + 1], reply[#reply + 2] = asked[at], request[2]
    end
  end
end
return reply
