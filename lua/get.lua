#!lua flags=no-writes
-- get: reads one job.
-- KEYS     1 queue base
-- ARGV     1 job id
-- RETURNS  nil if it is unknown, else {state, lane, envelope, created ms, started ms, field, value … of its record}
--          (created and started are "" when not known)
-- RACES    none: it only reads.
-- @include lib/clock
-- @include lib/record
-- @include lib/entry
-- @include lib/locate
local base, id = KEYS[1], ARGV[1]
local job = locate(base, id)
if not job then
  return nil
end
local record, parts = job.record or {}, job.parts or {}
local envelope = parts.d or record_envelope(base .. ':job:' .. id) or ''
local started = record.b or ''
if job.state == 'active' then
  started = string.format('%.0f', now_ms() - job.idle)
end
local reply = { job.state, job.lane, envelope, record.c or parts.t or '', started }
for field, value in pairs(record) do
  if not string.match(field, '^d%d*$') then
    reply[#reply + 1], reply[#reply + 2] = field, value
  end
end
return reply
