#!lua flags=no-writes
-- get: reads one job.
-- KEYS     1 queue base
-- ARGV     1 job id
-- RETURNS  nil if it is unknown, else as lib/describe
-- RACES    none: it only reads.
-- @include lib/clock
-- @include lib/record
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/describe
local base, id = KEYS[1], ARGV[1]
local job = locate(base, id)
if not job then
  return nil
end
return describe(base, id, job.state, job.lane, job.parts, job.record, job.idle)
