#!lua
-- stage: part of a large batch -> held aside, where no worker sees it, until `commit`.
-- KEYS     1 queue base
-- ARGV     1 batch  2 parts staged before this one  3 … four per job: lane, start, job id, envelope
-- RETURNS  parts staged now
-- RACES    the same part again (its reply was lost): it is recognised by its place and not staged twice. A batch that is
--          not committed goes away by itself.
local base, batch, before = KEYS[1], ARGV[1], tonumber(ARGV[2])
local STAGED_TTL_MS = 600000
local batch_key, count_key = base .. ':batch:' .. batch, base .. ':batch:' .. batch .. ':parts'
local parts = tonumber(redis.call('GET', count_key) or 0)
if parts > before then
  return parts
end
for from = 3, #ARGV, 4000 do
  redis.call('RPUSH', batch_key, unpack(ARGV, from, math.min(from + 3999, #ARGV)))
end
-- Whoever moves the batch into the queue is to know before: see lib/bound.
for at = 4, #ARGV, 4 do
  if string.find(ARGV[at], '|', 1, true) then
    redis.call('HSET', base .. ':meta', 'bound', 1)
    break
  end
end
redis.call('PEXPIRE', batch_key, STAGED_TTL_MS)
redis.call('SET', count_key, before + 1, 'PX', STAGED_TTL_MS)
return before + 1
