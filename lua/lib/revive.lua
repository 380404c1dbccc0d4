-- @include lib/bonds
-- @include lib/lineup
-- An ended job -> waiting in its own lane, its attempts counted from nothing, its dead letter taken back. Of the record
-- it needs `p`, and `q` if that is set.
local function revive(base, id, record, state, now)
  line_up(base, id, record.p, now)
  local key = base .. ':job:' .. id
  redis.call('HSET', key, 'a', 0, 'k', 0)
  redis.call('HDEL', key, 'f', 'b', 'g', 'q', 'm', 'n', 'r', 'w')
  redis.call('ZREM', base .. ':' .. state, id)
  if record.q then
    redis.call('XDEL', base .. ':dead', record.q)
  end
end
