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
local base, first, last, count, name, kind, cap = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local now, ids, stay, bound = now_ms(), {}, 0, is_bound(base)
if last == '' then
  last = last_letter(base)
end

local function add_again(letter, parts)
  if parts.ky then
    local fields = { 'p', parts.p, 'c', now, 'ky', parts.ky }
    add_envelope(fields, parts.d)
    enter(base, now, parts.ky, parts.j, parts.p, now, next_number(base), fields)
    settle_keys(base, now)
    redis.call('XDEL', base .. ':dead', letter)
    return
  end
  local entry = append(base, base .. ':lane:' .. parts.p, next_number(base), 'd', parts.d, 't', now, 'j', parts.j)
  redis.call('HSET', base .. ':job:' .. parts.j, 's', 'q', 'p', parts.p, 'e', entry, 'c', now)
  redis.call('XDEL', base .. ':dead', letter)
end

local cursor = each_letter(base, first, last, count, name, kind, function(letter, parts)
  local job = parts.j and locate(base, parts.j)
  local ours = job and job.state == 'failed' and job.record.q == letter
  if ours and not (bound and rebind(base, now, cap, parts.j)) then
    revive(base, now, cap, parts.j, job.record, 'failed')
  elseif not job and parts.j and parts.p and (parts.d or '') ~= '' then
    add_again(letter, parts)
  else
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
