#!lua flags=no-writes
-- keys: reads the keys that have jobs or settings of their own, those with most jobs first; or one key.
-- KEYS     1 queue base
-- ARGV     1 "" | the one key to read  2 how many to skip  3 how many to read
-- RETURNS  {keys in all, {job starts per window, window in ms, jobs that run at once, weight} of all keys, each "" if it is
--          not set, then for each: {key, jobs that wait or run, how many of them have a place, the same four of its own,
--          paused 0 | 1}}
-- RACES    none: it only reads.
local base, one, skip, count = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local keys_key = base .. ':keys'

local function settings(hash, prefix)
  local found = redis.call('HMGET', hash, prefix .. 'rate_max', prefix .. 'rate_ms', prefix .. 'active', prefix .. 'weight')
  return { found[1] or '', found[2] or '', found[3] or '', found[4] or '' }
end

local function tell(key, jobs)
  local hash = base .. ':key:' .. key
  local rate_max, rate_ms, most, weight = unpack(settings(hash, ''))
  local places = redis.call('ZCARD', base .. ':places:' .. key)
  return { key, tonumber(jobs), places, rate_max, rate_ms, most, weight, redis.call('HEXISTS', hash, 'paused') }
end

local reply = { redis.call('ZCARD', keys_key), settings(base .. ':meta', 'key_') }
if one ~= '' then
  reply[3] = tell(one, redis.call('ZSCORE', keys_key, one) or 0)
  return reply
end
local found = redis.call('ZREVRANGE', keys_key, skip, skip + count - 1, 'WITHSCORES')
for at = 1, #found, 2 do
  reply[#reply + 1] = tell(found[at], found[at + 1])
end
return reply
