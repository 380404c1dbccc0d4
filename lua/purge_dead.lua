#!lua flags=allow-oom
-- purge_dead: dead letters that match -> nothing. Failed jobs that are still kept stay.
-- KEYS     1 queue base
-- ARGV     1 the first letter, "-" | the cursor of the reply before  2 the last letter | "" for the last one there is now
--          3 letters to look at in this call  4 "" | a job name, encoded  5 "" | an error's type, encoded
--          6 cap of the event stream
-- RETURNS  {last letter, cursor ("": all were looked at), how many went}
-- RACES    redrive, retry: may have taken a letter already. Safe to call twice.
-- @include lib/events
-- @include lib/match
-- @include lib/lane
-- @include lib/letters
-- @include lib/sound
local base, first, last, count, name, kind, cap = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
sound(base, count)
local letters, jobs = {}, {}
if last == '' then
  last = last_letter(base)
end
local cursor = each_letter(base, first, last, count, name, kind, function(letter, parts)
  letters[#letters + 1] = letter
  jobs[#jobs + 1] = parts.j or ''
end)
if #letters > 0 then
  redis.call('XDEL', base .. ':dead', unpack(letters))
end
publish(base, cap, 'purged', jobs)
return { last, cursor, #letters }
