-- @include lib/bonds
-- An ended job -> waiting in its own lane, its attempts counted from nothing, its dead letter taken back; one whose children
-- have not all ended waits for them. Of the record it needs `p`, and `q` if that is set. Returns whether it is in its lane.
local function revive(base, now, cap, id, record, state)
  come_back(base, id, record.q, state)
  if (tonumber(redis.call('HGET', base .. ':job:' .. id, 'fo')) or 0) > 0 then
    await_children(base, now, cap, id)
    return false
  end
  line_up(base, id, record.p, now)
  return true
end
