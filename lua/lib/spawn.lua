-- @include lib/batch
-- @include lib/family
-- spawn: active -> waiting_children. Its handler has staged children for it; they go into the queue now, all of them,
-- whatever happens from here on: what one call can't take is moved by the next ticks. If they are no longer there, the job
-- runs again, and adds them again. `body` is the batch, a space, and `fk` of the record (see lib/family).
local TOKENS_BYTES = 100

local function spawn(turn, lane, id, parts, body, count, batch_parts, fields)
  local batch, keep = string.match(body, '^(%x+) (.*)$')
  local batch_key = turn.base .. ':batch:' .. batch
  if redis.call('GET', batch_key .. ':parts') ~= batch_parts then
    requeue(turn, lane, id, parts, fields)
    return
  end
  if turn.bound then
    release_key(turn.base, id) -- its children may have the same key, and only one place
  end
  redis.call('DEL', batch_key .. ':parts')
  redis.call('PERSIST', batch_key)
  redis.call('HSET', turn.base .. ':meta', 'bound', 1)
  turn.bound = true
  local key = job_key(turn, id)
  local before = redis.call('HGET', key, 'ft') -- some of those may be on their way still
  local tokens = string.sub(batch .. (before and ' ' .. before or ''), 1, TOKENS_BYTES)
  extend(fields, { 's', 'w', 'p', lane, 'ft', tokens, 'fk', keep })
  if parts.d then
    add_envelope(fields, parts.d)
  end
  redis.call('HSET', key, unpack(fields))
  redis.call('HINCRBY', key, 'fn', count)
  redis.call('HINCRBY', key, 'fo', count)
  redis.call('ZADD', turn.base .. ':waiting_children', turn.now, id)
  tell(turn, 'waiting_children', id)
  move_part(turn.base, turn.event_cap, turn.now, batch, PART, 0)
end
