-- The consumer that holds claims which were given back unstarted. They wait: nobody runs them.
local SPARE = 'spare'
