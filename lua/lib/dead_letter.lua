-- Writes dead letters. Each holds its job, so that this outlives its record.

-- What a letter says of its job's bonds: the job is given them again if its record has gone. (Its family forgets it.)
local LETTER_FIELDS = { 'uk', 'uw', 'ut', 'ky', 'wh' }

local function letter_bonds(base, id)
  local fields = {}
  for at, value in ipairs(redis.call('HMGET', base .. ':job:' .. id, unpack(LETTER_FIELDS))) do
    if value then
      extend(fields, { LETTER_FIELDS[at], value })
    end
  end
  return fields
end

-- Returns the letter's id.
local function write_letter(base, cap, id, envelope, err, lane, bonds)
  return redis.call('XADD', base .. ':dead', 'MAXLEN', '~', cap, '*', 'j', id, 'd', envelope, 'x', err, 'p', lane,
    unpack(bonds or {}))
end
