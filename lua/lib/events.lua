-- One stream entry says one kind of event of up to 100 jobs, so that events cost a batch little; readers take it apart.
-- Ids hold no control characters, so NUL can part them. A cap of 0: this process tells nobody of anything.
-- What has happened has happened: an event that can't be written is no reason to stop half way.
local EVENT_IDS = 100

local function publish(base, cap, kind, ids)
  if (tonumber(cap) or 0) <= 0 then
    return
  end
  for from = 1, #ids, EVENT_IDS do
    local upto = math.min(from + EVENT_IDS - 1, #ids)
    redis.pcall('XADD', base .. ':events', 'MAXLEN', '~', cap, '*', kind, table.concat(ids, '\0', from, upto))
  end
end
