"""What streamq does when workers, networks and servers fail: real processes, real signals, a real Redis."""
