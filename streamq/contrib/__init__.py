"""streamq inside other people's frameworks: a module each, an extra each, and none imported unless asked for."""
