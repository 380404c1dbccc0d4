#!lua
-- retry_many: failed | completed | cancelled jobs that match -> waiting, as retry does each.
-- KEYS     1 queue base
-- ARGV     1 state  2 "" | the cutoff of the reply before  3 the cursor of the reply before, or 0
--          4 how many at most in this call  5 "" | a job name, encoded  6 "" | an error's type, encoded
--          7 cap of the event stream
-- RETURNS  {cutoff ms, cursor ("": all were looked at), ids …}
-- RACES    a job that fails again between two calls is younger than the cutoff, so it is not retried again.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/record
-- @include lib/match
-- @include lib/append
-- @include lib/lineup
-- @include lib/revive
-- @include lib/sound
local base, state, cutoff, from, limit = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local name, kind, cap = ARGV[5], ARGV[6], ARGV[7]
local LOOK = 300
sound(base, from, limit)
local now, bound = now_ms(), is_bound(base)
cutoff = cutoff or now
local set = base .. ':' .. state
local size = redis.call('ZCARD', set)
local looked = redis.call('ZRANGE', set, from, from + LOOK - 1, 'WITHSCORES')
local ids, added, later, kept, done = {}, {}, {}, 0, #looked < 2 * LOOK

local function run_again(id, lane, letter)
  if bound and rebind(base, now, cap, id) then
    kept = kept + 1
    return
  end
  ids[#ids + 1] = id
  if revive(base, now, cap, id, { p = lane, q = letter }, state) then
    added[#added + 1] = id
  end
end

for at = 1, #looked, 2 do
  if #ids + #later >= limit then
    done = false
    break
  end
  if tonumber(looked[at + 1]) > cutoff then
    done = true
    break
  end
  local id = looked[at]
  local key = base .. ':job:' .. id
  local lane, letter, err, failed_by_children = unpack(redis.call('HMGET', key, 'p', 'q', 'x', 'fx'))
  if not (has_kind(err, kind) and (name == '' or has_name(record_envelope(key), name))) then
    kept = kept + 1
  elseif failed_by_children then
    later[#later + 1] = { id, lane, letter }
  else
    run_again(id, lane, letter)
  end
end
-- Parents come after the children that failed them: by then they may wait for those again.
for _, parent in ipairs(later) do
  if redis.call('ZSCORE', set, parent[1]) then
    run_again(unpack(parent))
  end
end
publish(base, cap, 'added', added)
if #ids > 0 then
  wake_unless_paused(base)
end
-- Parents that wait again have left the set as well, wherever they stood.
local waiting = size - redis.call('ZCARD', set) - #ids
return { string.format('%.0f', cutoff), done and '' or tostring(math.max(from + kept - waiting, 0)), unpack(ids) }
