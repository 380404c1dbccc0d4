-- @include lib/append
-- @include lib/parking
-- Puts a job that has a record, its envelope in it, at the end of its lane under a new entry; or with the others of its key.
local function line_up(base, id, lane, now)
  local key = redis.call('HGET', base .. ':job:' .. id, 'ky')
  if key then
    enter(base, now, key, id, lane, now, next_number(base))
    settle_keys(base, now)
    return
  end
  local entry = append(base, base .. ':lane:' .. lane, next_number(base), 'j', id, 't', now)
  redis.call('HSET', base .. ':job:' .. id, 's', 'q', 'e', entry)
end
