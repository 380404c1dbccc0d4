-- Goes through dead letters from `first` to `last`: at most `count` of them and a few megabytes, calling
-- `visit(letter, parts)` for those that match. Returns where to go on, or "" at the end.
local LETTER_BYTES = 2097152

local function each_letter(base, first, last, count, name, kind, visit)
  local looked, bytes, at = 0, 0, ''
  local whole = each_entry(base .. ':dead', first, last, false, function(letter, parts)
    if looked >= count or bytes > LETTER_BYTES then
      return false
    end
    looked, bytes, at = looked + 1, bytes + #(parts.d or ''), letter
    if has_name(parts.d, name) and has_kind(parts.x, kind) then
      visit(letter, parts)
    end
    return true
  end)
  return whole and '' or '(' .. at
end

local function last_letter(base)
  local found = redis.call('XREVRANGE', base .. ':dead', '+', '-', 'COUNT', 1)[1]
  return found and found[1] or '0-0'
end
