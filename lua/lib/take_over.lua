-- @include lib/batch
-- @include lib/dead_letter
-- @include lib/guard
-- take_over: batches that were committed, and whose producer fell silent, move in part by part, as it would have moved them.

-- Whether the next part of a batch holds bound jobs.
local function is_part_bound(base, batch, jobs)
  local part = redis.pcall('LRANGE', base .. ':batch:' .. batch, 0, jobs * PER_JOB - 1)
  for at = 2, part.err and 0 or #part, PER_JOB do
    if string.find(part[at], '|', 1, true) then
      return true
    end
  end
  return false
end

-- A part that somebody else has written is told of, and the next one's turn comes; what is no batch at all goes.
local function take_over_part(turn, batch, jobs)
  local moved, err = pcall(move_part, turn.base, turn.event_cap, turn.now, batch, jobs, 0)
  if moved then
    return
  end
  local why = cmsgpack.pack({ 'BrokenRecord', 'a part of a batch can not be read: ' .. why_of(err), '' })
  write_letter(turn.base, turn.dead_cap, batch, '', why, 3)
  local size = redis.pcall('LLEN', turn.base .. ':batch:' .. batch)
  if type(size) == 'table' and size.err then
    redis.call('ZREM', turn.base .. ':batches', batch)
    redis.call('UNLINK', turn.base .. ':batch:' .. batch)
  end
end

-- Returns whether the queue has its first bound jobs in a part: the next tick moves it, which begins with that knowledge.
local function take_over(turn, jobs)
  for _, batch in ipairs(redis.call('ZRANGEBYSCORE', turn.base .. ':batches', '-inf', turn.now, 'LIMIT', 0, 1)) do
    if not turn.bound and is_part_bound(turn.base, batch, jobs) then
      redis.call('HSET', turn.base .. ':meta', 'bound', 1)
      return true
    end
    take_over_part(turn, batch, jobs)
  end
  return false
end
