-- @include lib/lanes
-- guard: a job whose record somebody else has written, in whole or in part, can't be moved: that is an error, and an error
-- would end the tick half way, for all other jobs too. So what moves one job runs guarded; one that can't be moved becomes
-- a dead letter of type BrokenRecord, and what it was bound to is let go as far as that can be read.
local LONGEST_WHY = 200

-- Returns why `pcall` failed, as text. Errors that say nothing of the record go on their way: one that asks for another
-- script, one that this user may not do something.
local function why_of(err)
  local why = type(err) == 'table' and err.err or tostring(err)
  if string.sub(why, 1, 9) == 'NEEDBONDS' or string.sub(why, 1, 6) == 'NOPERM' then
    error(err, 0)
  end
  return string.sub(why, 1, LONGEST_WHY)
end

local function drop_record(turn, id, body)
  local base = turn.base
  if turn.bound then
    unbind_whatever(base, turn.now, turn.event_cap, id, 'failed', body)
  end
  redis.call('UNLINK', job_key(turn, id), base .. ':log:' .. id, base .. ':steps:' .. id, base .. ':children:' .. id)
end

-- The envelope, if it can be found.
local function envelope_of(turn, id, parts)
  local read, envelope = pcall(record_envelope, job_key(turn, id))
  return parts.d or read and envelope or ''
end

local function give_up(turn, lane, id, parts, why)
  local err = cmsgpack.pack({ 'BrokenRecord', 'its record can not be used: ' .. why, '' })
  local _, bonds = pcall(letter_bonds, turn.base, id)
  bonds = turn.bound and type(bonds) == 'table' and not bonds.err and bonds or nil
  write_letter(turn.base, turn.dead_cap, id, envelope_of(turn, id, parts), err, LANES[tostring(lane)] and lane or 3, bonds)
  drop_record(turn, id, err)
  tell(turn, 'failed', id)
  tell(turn, 'dead', id)
end
