"""Where a watchdog can be reached: the path of a socket that nobody else could have put there."""

from __future__ import annotations

import os
import stat

from unhang.errors import AddressError

# What sun_path holds on Linux, with the zero behind it.
_LONGEST = 107


def private_directory() -> str:
    """A directory of this user's alone: ``$XDG_RUNTIME_DIR/unhang``, else ``unhang-UID`` under the temporary one.

    Made if it is not there.

    Raises:
        AddressError: something else stands at its place, or no place is short enough.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isabs(runtime) and _belongs_to_us(runtime):
        return _made(os.path.join(runtime, "unhang"))
    import tempfile

    path = os.path.join(tempfile.gettempdir(), f"unhang-{os.geteuid()}")
    # Room for the name of a socket; a temporary directory may be deep.
    if len(os.fsencode(path)) > _LONGEST - 32:
        path = f"/tmp/unhang-{os.geteuid()}"  # noqa: S108 - checked for owner and mode below, as any other
    return _made(path)


def _belongs_to_us(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _made(path: str) -> str:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise AddressError(path, f"its directory cannot be made: {error.strerror}") from error
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise AddressError(path, "it is not a directory (a link is not followed)")
    if status.st_uid != os.geteuid():
        raise AddressError(path, f"it belongs to another user (uid {status.st_uid})")
    if status.st_mode & 0o077:
        raise AddressError(path, f"others may enter it (mode {stat.S_IMODE(status.st_mode):o}); chmod 700 it")
    return path


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
    if len(os.fsencode(address)) > _LONGEST:
        raise AddressError(address, f"a socket's path has {_LONGEST} bytes at most; use a shorter one")
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
