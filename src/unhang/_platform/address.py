"""Where a watchdog can be reached: the path of a socket that nobody else could have put there."""

from __future__ import annotations

import os
import stat

from unhang.errors import AddressError

# What sun_path holds on Linux, with the zero at its end.
LONGEST = 107


def check_address(address: str, *, users: frozenset[int] = frozenset()) -> str:
    """The address, if it is safe to bind or to connect to.

    Args:
        address: the path of a socket.
        users: who may own its directory, besides this user and root.

    Raises:
        AddressError: anybody could stand there, or it cannot be a socket's path.
    """
    if not address or address[0] in "@\0":
        raise AddressError(address, "an abstract or empty address belongs to anybody; use a path")
    if not os.path.isabs(address):
        raise AddressError(address, "it is not an absolute path")
    if len(os.fsencode(address)) > LONGEST:
        raise AddressError(address, f"a socket's path has {LONGEST} bytes at most; use a shorter one")
    directory = os.path.dirname(address)
    try:
        status = os.stat(directory)
    except OSError as error:
        raise AddressError(address, f"its directory cannot be used: {error.strerror}") from error
    if status.st_mode & stat.S_IWOTH:
        raise AddressError(address, f"anybody may write to {directory}; use a directory of your own, mode 700")
    if status.st_mode & stat.S_IWGRP and status.st_uid != 0:
        raise AddressError(address, f"its group may write to {directory}; use a directory of your own, mode 700")
    if status.st_uid not in {os.geteuid(), 0} | users:
        raise AddressError(address, f"{directory} belongs to another user (uid {status.st_uid})")
    return address
