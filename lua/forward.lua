#!lua
-- forward: dead letters -> jobs of another queue on the same server, each once; the letters stay.
-- KEYS     1 queue base
-- ARGV     1 the other queue's base  2 cap of its event stream  3 the letter up to which all were forwarded, as the caller
--          read it  4 the letter up to which these go  5 … three per job: letter, lane, envelope
--          (3 and 4 "" in a first call, which only asks)
-- RETURNS  {the letter up to which all are forwarded now, how many this call forwarded}
-- RACES    forward: of two with the same letters one finds that they went, and writes nothing. retry, redrive, purge_dead:
--          a letter that they took is passed over. Safe to call twice.
-- @include lib/clock
-- @include lib/enqueue
local base, target, cap, seen, upto = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local meta, dead_key = base .. ':meta', base .. ':dead'
local FIRST_JOB, PER_LETTER = 5, 3

local at = redis.call('HGET', meta, 'forwarded')
if not at then
  local last = redis.call('XREVRANGE', dead_key, '+', '-', 'COUNT', 1)[1]
  at = last and last[1] or '0-0' -- what was there before is for whoever redrives it
  redis.call('HSET', meta, 'forwarded', at)
end
if seen ~= at then
  return { at, 0 }
end
local jobs = {}
for i = FIRST_JOB, #ARGV, PER_LETTER do
  if redis.call('XRANGE', dead_key, ARGV[i], ARGV[i])[1] then
    extend(jobs, { ARGV[i + 1], '0', '', ARGV[i + 2] })
  end
end
if #jobs > 0 then
  enqueue(target, cap, now_ms(), jobs, 1)
end
redis.call('HSET', meta, 'forwarded', upto)
return { upto, #jobs / PER_JOB }
