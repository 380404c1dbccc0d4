#!lua
-- add: nothing -> waiting | delayed.
-- KEYS     1 queue base
-- ARGV     1 producer nonce  2 batch number  3 cap of the event stream  4 … four per job: lane, start, job id, envelope
--          start: "0" now | "+MS" so many ms from now | "@MS" at that time. job id: "" has one generated.
-- RETURNS  {first number, positions (from 1) of the jobs whose id was known already …}; job i without an own id is
--          number first + i - 1. {-1} if a later batch of this producer was seen.
-- RACES    the same batch again (its reply was lost): the first answer is repeated, nothing is added.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/record
local base, nonce, batch, cap = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local FIRST_JOB, PER_JOB, ANSWER_TTL_MS = 4, 4, 60000

local producer_key = base .. ':producer:' .. nonce
local seen = redis.call('GET', producer_key)
if seen then
  local answer = cmsgpack.unpack(seen)
  local last = table.remove(answer, 1)
  if last == batch then
    return answer
  elseif last > batch then
    return { -1 }
  end
end

local now = now_ms()
local count = (#ARGV - FIRST_JOB + 1) / PER_JOB
local first = redis.call('INCRBY', base .. ':id', count) - count + 1
local reply, added, delayed, earliest = { first }, {}, {}, nil

for i = 1, count do
  local at = FIRST_JOB + (i - 1) * PER_JOB
  local lane, start, id, envelope = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local number = string.format('%.0f', first + i - 1)
  local custom = id ~= ''
  if not custom then
    id = number
  end
  local job_key = base .. ':job:' .. id
  if custom and redis.call('EXISTS', job_key) == 1 then
    reply[#reply + 1] = i
  elseif start == '0' then
    if custom then
      redis.call('XADD', base .. ':lane:' .. lane, number .. '-0', 'd', envelope, 't', now, 'j', id)
      redis.call('HSET', job_key, 's', 'q', 'p', lane, 'e', number .. '-0', 'c', now)
    else
      redis.call('XADD', base .. ':lane:' .. lane, number .. '-0', 'd', envelope, 't', now)
    end
    added[#added + 1] = id
  else
    local due = tonumber(string.sub(start, 2))
    if string.sub(start, 1, 1) == '+' then
      due = now + due
    end
    local fields = { 's', 'd', 'p', lane, 'c', now, 'u', due }
    add_envelope(fields, envelope)
    redis.call('HSET', job_key, unpack(fields))
    redis.call('ZADD', base .. ':delayed', due, id)
    delayed[#delayed + 1] = id
    if not earliest or due < earliest then
      earliest = due
    end
  end
end

redis.call('SET', producer_key, cmsgpack.pack({ batch, unpack(reply) }), 'PX', ANSWER_TTL_MS)
publish(base, cap, 'added', added)
publish(base, cap, 'delayed', delayed)

local wanted = #added > 0
if not wanted and earliest then
  local head = redis.call('ZRANGE', base .. ':delayed', 0, 0, 'WITHSCORES')
  wanted = tonumber(head[2]) == earliest
end
if wanted and redis.call('HEXISTS', base .. ':meta', 'paused') == 0 then
  wake(base)
end
return reply
