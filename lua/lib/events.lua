-- One stream entry says one kind of event of up to 100 jobs, so that events cost a batch little; readers take it apart.
-- Ids hold no control characters, so NUL can part them. A cap of 0: this process tells nobody of anything.
local EVENT_IDS = 100

local function publish(base, cap, kind, ids)
  if tonumber(cap) == 0 then
    return
  end
  for from = 1, #ids, EVENT_IDS do
    local upto = math.min(from + EVENT_IDS - 1, #ids)
    redis.call('XADD', base .. ':events', 'MAXLEN', '~', cap, '*', kind, table.concat(ids, '\0', from, upto))
  end
end
