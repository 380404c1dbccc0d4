-- @needed by bound jobs only
-- @include lib/append
-- @include lib/wake
-- @include lib/events
-- Who asked to be told of a job's end (`wh` in its record: a URL) is told by another job of the queue, which is added in the
-- very call that ends this one. Its id says which job has ended, and how; the number tells one ending from the next.
local ENVELOPE_SCHEMA, WEBHOOK_JOB = 1, 'streamq-webhook' -- as `streamq/_engine/codec.py` has them

local function announce(base, now, cap, id, how, url)
  if how == 'removed' or how == 'forgotten' then
    return
  end
  local number = string.format('%.0f', redis.call('INCR', base .. ':id'))
  local telling = 'webhook:' .. number .. ':' .. how .. ':' .. id
  local envelope = cmsgpack.pack({ ENVELOPE_SCHEMA, WEBHOOK_JOB, { url = url } })
  local entry = append(base, base .. ':lane:3', number .. '-0', 'd', envelope, 't', now, 'j', telling)
  redis.call('HSET', base .. ':job:' .. telling, 's', 'q', 'p', 3, 'e', entry, 'c', now)
  publish(base, cap, 'added', { telling })
  wake_unless_paused(base)
end
