-- The server's clock: the only one that decides when something is due.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A start that is not "0", in ms: "+MS" so many from now, "@MS" at that time.
local function due_ms(start, now)
  return tonumber(string.sub(start, 2)) + (string.sub(start, 1, 1) == '+' and now or 0)
end
