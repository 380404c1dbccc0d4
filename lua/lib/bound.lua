-- Whether a queue has had bound jobs (see lib/bonds): until then nothing of that is needed, and producers and workers run
-- scripts that are without it (see `scripts.py`). In those, this is an error, which has the whole script run instead; so it
-- is called before anything is written.
local function need_bonds() end

local function is_bound(base)
  if redis.call('HGET', base .. ':meta', 'bound') ~= '1' then
    return false
  end
  need_bonds()
  return true
end

-- Takes `start` apart: when, and the bonds behind its "|" (see lib/enqueue).
local function bonds_of(start)
  local bar = string.find(start, '|', 1, true)
  if not bar then
    return start, nil
  end
  need_bonds()
  return string.sub(start, 1, bar - 1), cmsgpack.unpack(string.sub(start, bar + 1))
end
