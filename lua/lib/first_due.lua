-- @include lib/schedules
-- When the clock next asks for something: of delayed jobs, leases, batches, schedules, and keys if the queue has had bound
-- jobs. Returns ms, nil if there is nothing. What is parked (paused schedules, jobs that wait for another one) never is due.
local CLOCKS = { ':delayed', ':workers', ':batches', ':schedules', ':key_looks' }

local function first_due(base, bound)
  local first = nil
  for at = 1, bound and 5 or 4 do
    local head = redis.call('ZRANGE', base .. CLOCKS[at], 0, 0, 'WITHSCORES')
    local due = tonumber(head[2])
    if due and due < PARKED and (not first or due < first) then
      first = due
    end
  end
  return first
end
