-- @include lib/parked
-- Back-pressure: whether a queue that has a limit takes `count` more jobs. Looked at before anything is written.
-- Returns nil if it does, else {-4, jobs that it holds, its limit}.
local function no_room(base, count)
  local most = tonumber(redis.call('HGET', base .. ':meta', 'max_size'))
  if not most then
    return nil
  end
  local size = redis.call('ZCARD', base .. ':delayed') + parked_jobs(base)
  for lane = 1, 4 do
    size = size + redis.call('XLEN', base .. ':lane:' .. lane)
  end
  return size + count > most and { -4, size, most } or nil
end
