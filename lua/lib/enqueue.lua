-- Adds jobs to their lanes or to `delayed`. `jobs` is flat, four per job: lane, start, job id, envelope.
--   start: "0" now | "+MS" so many ms from now | "@MS" at that time. job id: "" has one generated.
-- Returns {first number, positions (from 1) of the jobs whose id was known already …}; job i without an id of its own
-- is number first + i - 1.
local PER_JOB = 4

local function enqueue(base, cap, now, jobs, from)
  local count = (#jobs - from + 1) / PER_JOB
  local first = redis.call('INCRBY', base .. ':id', count) - count + 1
  local reply, added, delayed, earliest = { first }, {}, {}, nil
  local lane_prefix, now_text = base .. ':lane:', string.format('%.0f', now) -- a number is converted anew at each call
  for i = 1, count do
    local at = from + (i - 1) * PER_JOB
    local lane, start, id, envelope = jobs[at], jobs[at + 1], jobs[at + 2], jobs[at + 3]
    local number = string.format('%.0f', first + i - 1)
    local plain = start == '0' and id == ''
    -- Fails if somebody else's entry stands in its way: then the job takes another entry, to which a record points.
    if plain and not redis.pcall('XADD', lane_prefix .. lane, number .. '-0', 'd', envelope, 't', now_text).err then
      added[#added + 1] = number
    else
      local custom = id ~= ''
      id = custom and id or number
      local job_key = base .. ':job:' .. id
      if custom and redis.call('EXISTS', job_key) == 1 then
        reply[#reply + 1] = i
      elseif start == '0' then
        local entry = append(base, lane_prefix .. lane, number .. '-0', 'd', envelope, 't', now_text, 'j', id)
        redis.call('HSET', job_key, 's', 'q', 'p', lane, 'e', entry, 'c', now_text)
        added[#added + 1] = id
      else
        local due = tonumber(string.sub(start, 2)) + (string.sub(start, 1, 1) == '+' and now or 0)
        local fields = { 's', 'd', 'p', lane, 'c', now, 'u', due }
        add_envelope(fields, envelope)
        redis.call('HSET', job_key, unpack(fields))
        redis.call('ZADD', base .. ':delayed', due, id)
        delayed[#delayed + 1] = id
        earliest = math.min(earliest or due, due)
      end
    end
  end
  publish(base, cap, 'added', added)
  publish(base, cap, 'delayed', delayed)

  local wanted = #added > 0
  if not wanted and earliest then
    -- Idle workers sleep until the earliest delayed job: tell one if that is sooner now.
    wanted = tonumber(redis.call('ZRANGE', base .. ':delayed', 0, 0, 'WITHSCORES')[2]) == earliest
  end
  if wanted and redis.call('HEXISTS', base .. ':meta', 'paused') == 0 then
    wake(base)
  end
  return reply
end
