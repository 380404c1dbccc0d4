-- How a family names its members: each by its queue, "" for the one that names it, and its id.
local function family_base(base, queue)
  if queue == '' then
    return base
  end
  return 'sq:' .. (string.sub(queue, 1, 1) == '{' and queue or '{' .. queue .. '}')
end

-- Undoes that: the queue of a base. One whose name begins with a tag goes on behind it.
local function queue_of(base)
  return string.sub(base, -1) == '}' and string.sub(base, 5, -2) or string.sub(base, 4)
end

-- How a parent's list names a child.
local function child_name(base, parent_base, id)
  return (parent_base == base and '' or queue_of(base)) .. '\0' .. id
end

-- Undoes that: returns the child's queue, its id, and the base of its queue.
local function named_child(parent_base, name)
  local queue, id = string.match(name, '^(%Z*)%z(.*)$')
  return queue, id, family_base(parent_base, queue)
end
