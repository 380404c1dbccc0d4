-- Compares a job's name and an error's type without decoding: `name` and `kind` are encoded as they are inside, and
-- follow a fixed number of bytes. "" matches all.
local function has_name(envelope, name)
  return name == '' or string.sub(envelope or '', 3, 2 + #name) == name
end

local function has_kind(err, kind)
  return kind == '' or string.sub(err or '', 2, 1 + #kind) == kind
end
