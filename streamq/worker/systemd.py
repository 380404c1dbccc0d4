"""Tell systemd how the process fares (`Type=notify`), if it was started by it: a datagram each time, no library.

The protocol is sd_notify(3): READY=1, STOPPING=1, and WATCHDOG=1 within each `WatchdogSec`.
"""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> bool:
    """Send `state`; False if systemd does not listen."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        return True
    return False


def watchdog_seconds() -> float | None:
    """Return how often systemd wants to hear from this process, halved to be safe; None if it does not."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000
