#!lua flags=allow-oom
-- wake: one idle worker -> ticks now.
-- KEYS     1 queue base
-- ARGV     none
-- RETURNS  1
-- RACES    none: a token too many costs one empty tick.
-- @include lib/wake
wake(KEYS[1])
return 1
