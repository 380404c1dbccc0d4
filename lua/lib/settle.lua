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

local function settle(turn, outcomes, from)
  local stale, settled, dropped = {}, 0, { {}, {}, {}, {} }
  for at = from, #outcomes, PER_OUTCOME do
    local kind, lane, entry, id, body, a, b, started, attempts = unpack(outcomes, at, at + PER_OUTCOME - 1)
    a = tonumber(a)
    if redis.call('XACK', lane_key(turn, lane), 'w', entry) == 0 then
      stale[#stale + 1] = (at - from) / PER_OUTCOME
    else
      settled = settled + 1
      local entries = dropped[tonumber(lane)]
      entries[#entries + 1] = entry
      if kind == 'done' and a == 0 then
        -- Nothing is kept: the entry need not be read.
        end_job(turn, 'completed', id, 0)
        tell(turn, 'completed', id)
      else
        local parts = read_entry(lane_key(turn, lane), entry) or {}
        local fields = extend(born(turn, parts), { 'a', attempts })
        if started ~= '0' then
          extend(fields, { 'b', started })
        end
        settle_one(turn, kind, lane, id, parts, body, a, b, fields)
      end
    end
  end
  for lane = 1, 4 do
    in_thousands('XDEL', lane_key(turn, lane), dropped[lane])
  end
  return stale, settled
end
