#!lua
-- max_size: how many jobs a queue takes -> another number. `add` and the first `commit` of a batch refuse what is over.
-- KEYS     1 queue base
-- ARGV     1 jobs that wait, run or are delayed at most | 0 for no limit
-- RETURNS  1
-- RACES    add: one that runs just before goes by the old number. Safe to call twice.
-- @include lib/sound
local base, most = KEYS[1], ARGV[1]
sound(base)
if most == '0' then
  redis.call('HDEL', base .. ':meta', 'max_size')
else
  redis.call('HSET', base .. ':meta', 'max_size', most)
end
return 1
