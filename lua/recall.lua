#!lua flags=no-writes
-- recall: reads what earlier attempts of an active job have remembered.
-- KEYS     1 queue base
-- ARGV     1 lane  2 entry  3 job id
-- RETURNS  {1, field, value, …} of its steps, or {0} if the entry is no longer pending: the lease moved on
-- RACES    tick (sweep, settle): after either, the entry is gone and this tells nothing.
local base, lane, entry, id = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local pending = redis.pcall('XPENDING', base .. ':lane:' .. lane, 'w', entry, entry, 1)
if pending.err or #pending == 0 then
  return { 0 }
end
return { 1, unpack(redis.call('HGETALL', base .. ':steps:' .. id)) }
