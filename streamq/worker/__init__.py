"""The worker's runtime: one background role per file. `python -m streamq.worker --help` tells how to start one."""

from streamq.worker.worker import Worker

__all__ = ["Worker"]
