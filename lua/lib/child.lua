-- How a family names its members: each by its queue, "" for the one that names it, and its id.
local function family_base(base, queue)
  return queue == '' and base or 'sq:{' .. queue .. '}'
end

-- How a parent's list names a child.
local function child_name(base, parent_base, id)
  return (parent_base == base and '' or string.sub(base, 5, -2)) .. '\0' .. id
end

-- Undoes that: returns the child's queue, its id, and the base of its queue.
local function named_child(parent_base, name)
  local queue, id = string.match(name, '^(%Z*)%z(.*)$')
  return queue, id, family_base(parent_base, queue)
end
