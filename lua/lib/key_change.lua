-- @include lib/parking
-- What is said of a key, or of all keys ("") has changed: whoever may start now is found.
local function key_changed(base, now, key)
  if key == '' then
    redis.call('ZUNIONSTORE', base .. ':key_looks', 1, base .. ':keys', 'WEIGHTS', 0) -- ticks look at all, a few at a time
  else
    if redis.call('EXISTS', base .. ':key:' .. key) == 1 then
      redis.call('ZINCRBY', base .. ':keys', 0, key)
    elseif redis.call('ZSCORE', base .. ':keys', key) == '0' then
      redis.call('ZREM', base .. ':keys', key)
    end
    local book = book_of(base, key)
    book.moved = true -- its weight may be another
    touch(book)
    settle_keys(base, now)
  end
  wake_unless_paused(base)
end
