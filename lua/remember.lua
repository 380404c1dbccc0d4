#!lua
-- remember: an active job -> the same, with a step's result, or how far it is, for its next attempts.
-- KEYS     1 queue base
-- ARGV     1 lane  2 entry  3 job id  4 field: "c" the cursor, "s" and a step's name  5 value (encoded)
-- RETURNS  1, or 0 if the entry is no longer pending: the lease moved on, nothing was written
-- RACES    as progress.
-- @include lib/entry
-- @include lib/report
local base, lane, entry, id, field, value = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
assert(value, 'arguments are missing')
redis.call('HEXISTS', base .. ':steps:' .. id, field)
redis.call('HEXISTS', base .. ':meta', 'stepped')
if not report_to_record(base .. ':lane:' .. lane, base .. ':job:' .. id, lane, entry) then
  return 0
end
redis.call('HSET', base .. ':meta', 'stepped', '1')
redis.call('HSET', base .. ':steps:' .. id, field, value)
return 1
