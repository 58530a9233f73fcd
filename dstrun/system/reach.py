"""Whether a server can be reached, found out in bounded time."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

PATIENCE = 2.0
"""Seconds to reach a server."""


def reachable(url: str) -> bool:
    """Try a TCP connection to a server, or to the proxy that leads there."""
    reached = threading.Event()

    def knock() -> None:
        from urllib.request import getproxies, proxy_bypass

        with suppress(OSError, ValueError):
            target = urlsplit(url)
            proxy = getproxies().get(target.scheme)
            if proxy and not proxy_bypass(target.netloc):
                target = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
            port = target.port or (443 if target.scheme == "https" else 80)
            # Without a host the system would connect to this machine.
            if target.hostname:
                socket.create_connection((target.hostname, port), timeout=PATIENCE).close()
                reached.set()

    # In a thread, as looking up a name knows no timeout.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return reached.is_set()
