-- A lane's entry. Fields: d envelope; t when it came into the lane (ms); j job id. Without j the id is the entry's number.
-- Without d the envelope is in the record.
local function read_entry(lane_key, entry)
  local found = redis.call('XRANGE', lane_key, entry, entry)[1]
  if not found then
    return nil
  end
  local fields, parts = found[2], {}
  for at = 1, #fields, 2 do
    parts[fields[at]] = fields[at + 1]
  end
  return parts
end
