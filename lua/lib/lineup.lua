-- @include lib/append
-- Puts a job that has a record, its envelope in it, at the end of its lane under a new entry.
local function line_up(base, id, lane, now)
  local entry = append(base, base .. ':lane:' .. lane, next_number(base), 'j', id, 't', now)
  redis.call('HSET', base .. ':job:' .. id, 's', 'q', 'e', entry)
end
