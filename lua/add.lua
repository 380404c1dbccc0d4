#!lua
-- add: nothing -> waiting | delayed.
-- KEYS     1 queue base
-- ARGV     1 producer nonce  2 call number  3 cap of the event stream  4 … four per job: lane, start, job id, envelope
-- RETURNS  as lib/enqueue; {-1} if a later call of this producer was seen
-- RACES    the same call again (its reply was lost): the first answer is repeated, nothing is added.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/record
-- @include lib/enqueue
-- @include lib/producer
local base, nonce, number, cap = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local reply = answered(base, nonce, number)
if not reply then
  reply = enqueue(base, cap, now_ms(), ARGV, 4)
  remember(base, nonce, number, reply)
end
return reply
