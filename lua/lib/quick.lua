-- A small sorted set is a list, which every new member walks from its start, reading each score: 3 µs at a hundred members,
-- and 10 if the scores are no whole numbers. A member of more than 64 bytes makes it a skip list, which it then stays.
local LIST_SIZE, LONG = 32, 65

local function make_quick(set_key, size)
  if size > LIST_SIZE and redis.call('OBJECT', 'ENCODING', set_key) ~= 'skiplist' then
    local member = string.rep('-', LONG)
    redis.call('ZADD', set_key, 0, member)
    redis.call('ZREM', set_key, member)
  end
end
