-- A lane's entry. Fields: d envelope; t when it came into the lane (ms); j job id. Without j the id is the entry's number.
-- Without d the envelope is in the record.
local function parts_of(fields)
  local parts = {}
  for at = 1, #fields, 2 do
    parts[fields[at]] = fields[at + 1]
  end
  return parts
end

local function read_entry(lane_key, entry)
  local found = redis.call('XRANGE', lane_key, entry, entry)[1]
  return found and parts_of(found[2])
end
