-- A committed batch moves into the queue a part at a time. Its producer does that; if it falls silent, ticks do.
local PART, PATIENCE_MS = 1000, 10000

-- Moves one part of at most `jobs` jobs, leaving the rest to the caller for `patience_ms`; returns what `enqueue` returns,
-- and whether more is left.
local function move_part(base, cap, now, batch, jobs, patience_ms)
  local batch_key = base .. ':batch:' .. batch
  local part = redis.call('LPOP', batch_key, jobs * PER_JOB) or {}
  local more = redis.call('EXISTS', batch_key) == 1
  if more then
    redis.call('ZADD', base .. ':batches', now + patience_ms, batch)
  else
    redis.call('ZREM', base .. ':batches', batch)
  end
  return enqueue(base, cap, now, part, 1), more
end
