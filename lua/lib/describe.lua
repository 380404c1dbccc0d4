-- A job as `get` and `jobs` tell it: {state, lane, envelope, created ms, started ms, field, value … of its record};
-- created and started are "" when not known. `idle` is how long ago an active job was claimed.
local function describe(base, id, state, lane, parts, record, idle)
  parts, record = parts or {}, record or {}
  local envelope = parts.d or record_envelope(base .. ':job:' .. id) or ''
  local started = idle and string.format('%.0f', now_ms() - idle) or record.b or ''
  local reply = { state, tostring(lane), envelope, record.c or parts.t or '', started }
  for field, value in pairs(record) do
    if not string.match(field, '^d%d*$') then
      reply[#reply + 1], reply[#reply + 2] = field, value
    end
  end
  return reply
end
