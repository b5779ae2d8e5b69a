"""Who is at the other end of a unix socket, as the kernel says."""

from __future__ import annotations

import socket
import struct


def peer_credentials(peer: socket.socket) -> tuple[int, int]:
    """The pid and the effective uid of whoever connected this unix socket, as the kernel says."""
    size = struct.calcsize("3i")
    pid, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, user
