-- @include lib/lanes
-- @include lib/read_hash
-- A job's record as a table, or nil.
local function read_record(base, id)
  return read_hash(base .. ':job:' .. id)
end

-- What a record may say: what somebody else has written there counts as nothing.
local STATES = { p = 'waiting', d = 'delayed', w = 'waiting_children', c = 'completed', f = 'failed', x = 'cancelled' }

-- Finds a job by its id: where it is, and what its record and its entry say. One that is parked waits without an entry.
-- Returns {state, lane, entry or nil, entry's parts or nil, its record as a table or nil}; nil if it is unknown.
local function locate(base, id)
  local record = read_record(base, id)
  if record and STATES[record.s] then
    return { state = STATES[record.s], lane = LANES[record.p] and record.p or '3', record = record }
  end
  local entry = record and record.e
  if not entry then
    if #id > 16 or not string.match(id, '^[1-9]%d*$') then
      return nil
    end
    entry = id .. '-0'
  end
  for lane = 1, 4 do
    if not record or not LANES[record.p] or tonumber(record.p) == lane then
      local lane_key = base .. ':lane:' .. lane
      local parts = read_entry(lane_key, entry)
      -- An entry of another job may bear the number that a generated id once had.
      if parts and (parts.j or string.match(entry, '^%d+')) == id then
        local pending = redis.pcall('XPENDING', lane_key, 'w', entry, entry, 1)
        local active = not pending.err and pending[1] and pending[1][2] ~= SPARE and pending[1]
        return {
          state = active and 'active' or 'waiting',
          lane = tostring(lane),
          entry = entry,
          parts = parts,
          record = record,
          worker = active and active[2] or nil,
          idle = active and active[3] or nil,
        }
      end
    end
  end
  return nil
end
