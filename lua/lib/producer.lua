-- A producer numbers its calls, and the last answer to each producer is kept for a while: a call that arrives again,
-- because its reply was lost, gets that answer and does nothing.
local ANSWER_TTL_MS = 60000

-- Returns the kept answer if this very call was seen, {-1} if a later one was, nil if the call is new.
local function answered(base, nonce, number)
  local seen = redis.call('GET', base .. ':producer:' .. nonce)
  if not seen then
    return nil
  end
  local answer = cmsgpack.unpack(seen)
  local last = table.remove(answer, 1)
  if last == number then
    return answer
  end
  return last > number and { -1 } or nil
end

local function remember(base, nonce, number, answer)
  local kept = cmsgpack.pack({ number, unpack(answer) })
  redis.call('SET', base .. ':producer:' .. nonce, kept, 'PX', ANSWER_TTL_MS)
end
