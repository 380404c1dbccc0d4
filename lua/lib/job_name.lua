-- A job's name, or "" if its envelope can't be read.
local function job_name(envelope)
  -- Behind the array's head and the schema number.
  local read, _, name = pcall(cmsgpack.unpack_limit, envelope, 1, 2)
  return read and type(name) == 'string' and name or ''
end
