"""Tests of code that adds jobs, and of processors: on a real server and with the real engine, and never by waiting.

    async def test_a_new_user_is_welcomed(streamq_queue):
        await sign_up("ada@example.com", queue=streamq_queue)
        await assert_added(streamq_queue, "send-welcome", data={"to": "ada@example.com"})
        await drain(streamq_queue, processors)

`drain` runs a real worker until nothing is left to do, `inline` does so after each add, `time_travel` moves the clock
that the scripts go by, `server` starts a server. The fixtures are in `streamq_pytest`, which pytest finds by itself.
Nothing here is for production, and nothing of production knows of it.
"""

from streamq.testing.asserts import assert_added, assert_not_added
from streamq.testing.clock import Clock, time_travel
from streamq.testing.draining import Drained, drain
from streamq.testing.inline import inline
from streamq.testing.servers import server

__all__ = ["Clock", "Drained", "assert_added", "assert_not_added", "drain", "inline", "server", "time_travel"]
