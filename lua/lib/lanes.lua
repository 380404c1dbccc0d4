-- The names of the lanes: what a record or somebody else says may be none.
local LANES = { ['1'] = true, ['2'] = true, ['3'] = true, ['4'] = true }
