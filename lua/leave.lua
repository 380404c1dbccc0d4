#!lua flags=allow-oom
-- leave: a worker that holds nothing -> gone; one that still holds jobs -> expired, so that the next tick requeues them.
-- KEYS     1 queue base
-- ARGV     1 worker
-- RETURNS  the number of jobs that it still held
-- RACES    tick (sweep): may have removed the worker already. Safe to call twice.
local base, worker = KEYS[1], ARGV[1]
local held = 0
for lane = 1, 4 do
  local lane_key = base .. ':lane:' .. lane
  local pending = redis.pcall('XPENDING', lane_key, 'w', '-', '+', 10000, worker)
  if not pending.err then
    if #pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', lane_key, 'w', worker)
    end
    held = held + #pending
  end
end
if held == 0 then
  redis.call('ZREM', base .. ':workers', worker)
else
  redis.call('ZADD', base .. ':workers', 0, worker)
end
return held
