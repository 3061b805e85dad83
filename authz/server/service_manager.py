"""Tells the service manager about the start and the end of the node, by the protocol of sd_notify(3)."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

__all__ = ["READY", "STOPPING", "notify"]

READY: Final = "READY=1"
"""Every listener is open."""
STOPPING: Final = "STOPPING=1"
"""The node refuses new calls and ends."""


def notify(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send a state to the socket `NOTIFY_SOCKET`, if a service manager gave one.

    A service manager that cannot be reached changes nothing: the node serves without it.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # `@` stands for the zero byte of an abstract socket.
    target = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1.0)
        sender.sendto(state.encode(), target)
