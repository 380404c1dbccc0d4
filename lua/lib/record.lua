-- A job's record. docs/keys.md names its fields. Times are milliseconds.
--
-- An envelope is stored in pieces of 64 bytes because a longer value turns the hash from a listpack into a hash table,
-- at twice the memory.
local PIECE, PIECES = 64, 16
local PIECE_FIELDS = { 'd', 'd1', 'd2', 'd3', 'd4', 'd5', 'd6', 'd7', 'd8', 'd9', 'd10', 'd11', 'd12', 'd13', 'd14', 'd15' }

local function extend(fields, more)
  local size = #fields
  for at = 1, #more do
    fields[size + at] = more[at]
  end
  return fields
end

local function add_envelope(fields, envelope)
  local size = #envelope
  local at = #fields
  if size <= PIECE or size > PIECE * PIECES then
    fields[at + 1], fields[at + 2] = 'd', envelope
    return fields
  end
  local piece = 1
  for from = 1, size, PIECE do
    fields[at + 1], fields[at + 2] = PIECE_FIELDS[piece], string.sub(envelope, from, from + PIECE - 1)
    at, piece = at + 2, piece + 1
  end
  return fields
end

-- Puts an envelope together from its first pieces; reads the others only if there are more.
local function join_pieces(key, first, second, third)
  if not second or #first ~= PIECE then
    return first
  elseif not third or #second ~= PIECE then
    return first .. second
  elseif #third ~= PIECE then
    return first .. second .. third
  end
  local pieces = redis.call('HMGET', key, unpack(PIECE_FIELDS))
  local upto = 3
  while pieces[upto + 1] do
    upto = upto + 1
  end
  return table.concat(pieces, '', 1, upto)
end

local function record_envelope(key)
  return join_pieces(key, unpack(redis.call('HMGET', key, 'd', 'd1', 'd2')))
end
