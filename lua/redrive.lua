#!lua
-- redrive: dead letters that match -> jobs again. One whose job's record is there (failed) is retried; one whose record
--          is gone is added again under its old id, if that is free.
-- KEYS     1 queue base
-- ARGV     1 the first letter, "-" | the cursor of the reply before  2 the last letter | "" for the last one there is now
--          3 letters to look at in this call  4 "" | a job name, encoded  5 "" | an error's type, encoded
--          6 cap of the event stream
-- RETURNS  {last letter, cursor ("": all were looked at), letters that stay because their id or their unique key is
--          taken or their job is lost, job ids …}
-- RACES    retry: takes the letter back, so one of the two finds nothing. Letters written between two calls come after the
--          last one. Safe to call twice.
-- @include lib/clock
-- @include lib/wake
-- @include lib/events
-- @include lib/entry
-- @include lib/spare
-- @include lib/locate
-- @include lib/match
-- @include lib/lane
-- @include lib/letters
-- @include lib/append
-- @include lib/lineup
-- @include lib/revive
-- @include lib/sound
local base, first, last, count, name, kind, cap = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
sound(base, count)
local now, ids, stay, bound = now_ms(), {}, 0, is_bound(base)
if last == '' then
  last = last_letter(base)
end

-- Returns whether it was added: not if another job holds its unique key by now.
local function add_again(letter, parts)
  local holder = parts.uk and unique_holder(base, parts.uk)
  if holder and holder ~= parts.j then
    return false
  end
  local fields = { 'p', parts.p, 'c', now }
  for _, field in ipairs(LETTER_FIELDS) do
    if parts[field] then
      extend(fields, { field, parts[field] })
      redis.call('HSET', base .. ':meta', 'bound', 1)
    end
  end
  if parts.uk then
    hold_unique(base, parts.uk, parts.j, parts.ut)
  end
  if parts.ky then
    add_envelope(fields, parts.d)
    enter(base, now, parts.ky, parts.j, parts.p, now, next_number(base), fields)
    settle_keys(base, now)
  else
    local entry = append(base, base .. ':lane:' .. parts.p, next_number(base), 'd', parts.d, 't', now, 'j', parts.j)
    redis.call('HSET', base .. ':job:' .. parts.j, 's', 'q', 'e', entry, unpack(fields))
  end
  redis.call('XDEL', base .. ':dead', letter)
  return true
end

local cursor = each_letter(base, first, last, count, name, kind, function(letter, parts)
  local job = parts.j and locate(base, parts.j)
  local ours = job and job.state == 'failed' and job.record.q == letter
  if ours and not (bound and rebind(base, now, cap, parts.j)) then
    revive(base, now, cap, parts.j, job.record, 'failed')
  elseif job or not parts.j or not parts.p or (parts.d or '') == '' or not add_again(letter, parts) then
    stay = stay + 1
    return
  end
  ids[#ids + 1] = parts.j
end)
publish(base, cap, 'redriven', ids)
if #ids > 0 then
  wake_unless_paused(base)
end
return { last, cursor, stay, unpack(ids) }
