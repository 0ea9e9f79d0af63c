"""Words to systemd: ready, stopping, still alive."""

from __future__ import annotations

import os


def notify(message: str) -> None:
    """Tell systemd (sd_notify(3)); nothing happens elsewhere."""
    import socket

    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address)
        channel.send(message.encode())


def watchdog_s() -> float:
    """Seconds within which systemd wants a sign of life of this process (sd_watchdog_enabled(3)); 0: it wants none."""
    wanted, whose = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not wanted.isdecimal() or whose not in ("", str(os.getpid())):
        return 0.0
    return int(wanted) / 1e6
