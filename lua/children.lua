#!lua flags=no-writes
-- children: reads how a job's children stand, in the order in which they were added.
-- KEYS     1 queue base
-- ARGV     1 job id  2 the place of the first one, from 1  3 how many at most
-- RETURNS  {children in all, the place to go on from (0: that was all), {place, its queue ("": the same), id,
--          how it ended ("" not yet | c | f | x | r), result or error, children that it has had itself} …}; ends early
--          after some megabytes; {} if the job is unknown
-- RACES    none: it only reads.
-- @include lib/child
local base, id, from, count = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local BYTES = 2097152
if redis.call('EXISTS', base .. ':job:' .. id) == 0 then
  return {}
end
local total = tonumber(redis.call('HGET', base .. ':job:' .. id, 'fn') or 0)
local reply, bytes, at = { total, 0 }, 0, from
while at <= total and at < from + count and bytes < BYTES do
  local name, ending = unpack(redis.call('HMGET', base .. ':children:' .. id, at, 'e' .. at))
  if name and ending ~= '-' then
    local queue, child, child_base = named_child(base, name)
    local had = redis.call('HGET', child_base .. ':job:' .. child, 'fn')
    ending = ending or ''
    bytes = bytes + #ending
    reply[#reply + 1] = { at, queue, child, string.sub(ending, 1, 1), string.sub(ending, 2), tonumber(had) or 0 }
  end
  at = at + 1
end
reply[2] = at <= total and at or 0
return reply
