#!lua flags=no-writes
-- logs: reads lines of a job's log.
-- KEYS     1 queue base
-- ARGV     1 job id  2 the first line wanted, from 0: lines that the cap has dropped count  3 how many at most
-- RETURNS  {number of the first line in this reply, lines logged so far, lines …}
-- RACES    none: it only reads.
local base, id, start, count = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local log_key = base .. ':log:' .. id
local kept = redis.call('LLEN', log_key)
local total = math.max(tonumber(redis.call('HGET', base .. ':job:' .. id, 'l') or 0), kept)
local first = math.max(start, total - kept)
local from = first - (total - kept)
return { first, total, unpack(redis.call('LRANGE', log_key, from, from + count - 1)) }
