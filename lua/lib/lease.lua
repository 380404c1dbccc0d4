-- lease: a worker's sign of life. Where all leases have lapsed it was Redis that was away (or everybody else's clock that
-- stood still): nobody could renew, so that says nothing of who lives. All of them then begin anew, and those that do not
-- show up lapse once more. A lease that ended at 0 was given up by its worker, and begins nothing.
local GIVEN_UP = 0

-- Returns whether the worker had none.
local function renew_lease(base, worker, now, lease_ms)
  local workers_key = base .. ':workers'
  local newest = redis.call('ZRANGE', workers_key, -1, -1, 'WITHSCORES')
  if newest[2] and tonumber(newest[2]) < now then
    for _, other in ipairs(redis.call('ZRANGEBYSCORE', workers_key, '(' .. GIVEN_UP, '+inf')) do
      redis.call('ZADD', workers_key, now + lease_ms, other)
    end
  end
  return redis.call('ZADD', workers_key, now + lease_ms, worker) == 1
end
