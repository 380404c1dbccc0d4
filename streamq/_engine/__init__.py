"""The storage: the only part of streamq that knows Redis. Private; `Queue` and `Worker` are its users."""
