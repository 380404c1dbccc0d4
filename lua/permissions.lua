#!lua flags=no-writes
-- permissions: asks the server which commands this user may run on the queue's keys. Runs none of them.
-- KEYS     1 queue base
-- ARGV     commands, each as its words with a space between; @ stands for a key of the queue
-- RETURNS  {number of a command in ARGV, "refused" | "unknown" …}: those that may not be run; what is not there is fine
-- RACES    none: it only asks.
local key = KEYS[1] .. ':meta'
local found = {}
for at, command in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(command, '%S+') do
    words[#words + 1] = word == '@' and key or word
  end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if not known then
    found[#found + 1], found[#found + 2] = at, 'unknown'
  elseif not allowed then
    found[#found + 1], found[#found + 2] = at, 'refused'
  end
end
return found
