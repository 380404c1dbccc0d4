"""The kill storm against other queues: what each loses, repeats and refuses when workers and the server die."""
