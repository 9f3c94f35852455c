"""A process without a network: a namespace of its own where the system allows it, and sockets that refuse."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import Any

_NEW_NETWORK, _SET_FLAGS, _UP = 0x40000000, 0x8914, 0x1 | 0x40
_LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", None)


def leave_the_network() -> bool:
    """Leave every network but the loopback, for this process and those it starts; whether the system allowed it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare") or libc.unshare(_NEW_NETWORK) != 0:
        return False
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))
    return True


def refuse_others() -> list[str]:
    """Make sockets refuse every other host; the list of those that are asked for, which grows."""
    asked: list[str] = []

    def refuse(host: Any) -> None:
        host = host.decode() if isinstance(host, bytes) else host
        if host not in _LOCAL:
            asked.append(str(host))
            raise OSError(101, os.strerror(101), str(host))

    def guarded(original: Any) -> Any:
        def call(self: socket.socket, *arguments: Any) -> Any:
            if self.family != socket.AF_UNIX:
                refuse(arguments[-1][0])
            return original(self, *arguments)

        return call

    real_look_up = socket.getaddrinfo

    def look_up(host: Any, *more: Any, **named: Any) -> Any:
        refuse(host)
        return real_look_up(host, *more, **named)

    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
    socket.getaddrinfo = look_up  # type: ignore[assignment]
    return asked
