-- settle: active -> completed | delayed | failed | waiting. XACK answers 1 to the holder of an entry only.
-- Returns the positions (from 0) of the outcomes that were stale, and how many counted.
local PER_OUTCOME = 9

local function settle_one(turn, kind, lane, id, parts, body, a, b, fields)
  if kind == 'done' then
    complete(turn, lane, id, parts, body, a, tonumber(b), fields)
    tell(turn, 'completed', id)
  elseif kind == 'fail' then
    fail(turn, lane, id, parts, body, a, tonumber(b), fields)
  else
    if kind == 'retry' then
      extend(fields, { 'x', body })
      tell(turn, 'retrying', id)
    elseif b ~= '' then
      redis.call('HINCRBY', job_key(turn, id), b, 1)
    end
    if kind == 'hold' then
      redis.call('HSET', turn.base .. ':meta', 'hold_until', turn.now + a)
      turn.hold_until = turn.now + a
    end
    if a == 0 then
      requeue(turn, lane, id, parts, fields)
    else
      delay(turn, lane, id, parts, a, fields)
      tell(turn, 'delayed', id)
    end
  end
end

local function number_of(entry)
  return tonumber(string.match(entry, '^%d+'))
end

-- Reads the entries of a lane, as parts by entry. Jobs are claimed in a row, so they mostly end in a row too: one range
-- finds most of them, at a fraction of what reading each would cost.
local function read_entries(key, entries)
  local found = {}
  if #entries >= 4 then
    local low, high = entries[1], entries[1]
    for _, entry in ipairs(entries) do
      if number_of(entry) < number_of(low) then
        low = entry
      elseif number_of(entry) > number_of(high) then
        high = entry
      end
    end
    for _, item in ipairs(redis.call('XRANGE', key, low, high, 'COUNT', #entries + 50)) do
      local fields = item[2]
      found[item[1]] = { [fields[1]] = fields[2], [fields[3] or ''] = fields[4], [fields[5] or ''] = fields[6] }
    end
  end
  for _, entry in ipairs(entries) do
    found[entry] = found[entry] or read_entry(key, entry) or {}
  end
  return found
end

local function settle(turn, outcomes, from)
  local stale, settled, fresh = {}, 0, {}
  local dropped, wanted = { {}, {}, {}, {} }, { {}, {}, {}, {} }
  for at = from, #outcomes, PER_OUTCOME do
    local lane, entry = tonumber(outcomes[at + 1]), outcomes[at + 2]
    if redis.call('XACK', lane_key(turn, lane), 'w', entry) == 0 then
      stale[#stale + 1] = (at - from) / PER_OUTCOME
    else
      settled = settled + 1
      fresh[settled] = at
      local entries = dropped[lane]
      entries[#entries + 1] = entry
      if outcomes[at] ~= 'done' or outcomes[at + 5] ~= '0' then
        entries = wanted[lane]
        entries[#entries + 1] = entry
      end
    end
  end
  local parts_of = {}
  for lane = 1, 4 do
    parts_of[lane] = #wanted[lane] > 0 and read_entries(lane_key(turn, lane), wanted[lane])
  end
  for _, at in ipairs(fresh) do
    local kind, lane, entry, id, body, a, b, started, attempts = unpack(outcomes, at, at + PER_OUTCOME - 1)
    if kind == 'done' and a == '0' then
      -- Nothing is kept: the entry need not be read.
      end_job(turn, 'completed', id, 0)
      tell(turn, 'completed', id)
    else
      local parts = parts_of[tonumber(lane)][entry]
      local fields = { 'a', attempts }
      if started ~= '0' then
        fields[3], fields[4] = 'b', started
      end
      if not parts.j then
        -- A record is made: it keeps what the entry knew.
        fields[#fields + 1], fields[#fields + 2] = 'c', parts.t or turn.now_text
      end
      settle_one(turn, kind, lane, id, parts, body, tonumber(a), b, fields)
    end
  end
  for lane = 1, 4 do
    in_thousands('XDEL', lane_key(turn, lane), dropped[lane])
  end
  return stale, settled
end
