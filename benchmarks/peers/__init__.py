"""Other queues, each in an environment of its own, measured beside streamq in one run. `python -m benchmarks.peers`."""
