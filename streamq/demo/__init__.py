"""`python -m streamq.demo`: a bank's jobs, from the producer through a real worker to files that can be opened.

It makes a sample bank in a folder of its own, uses the server that the environment names or an embedded one, and
starts one worker process. `run` is the story, `folder` the place, `worker` the process, `show` what is printed.
"""
