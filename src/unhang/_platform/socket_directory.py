"""Directories for the sockets of watchdogs that were given no address.

Such a watchdog takes a *well-known* directory, where those who look for it look first. Other users can make that one
unusable (``/tmp/unhang-0`` of another user, a file there), and so can the system (a file system that is read-only), so
the next choice is a *fresh* one: ``unhang-UID-`` and 16 random digits, made for one socket and removed with it. Both
are this user's alone, with mode 700 whatever the umask is.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator

from unhang._platform.address import LONGEST
from unhang._platform.directories import make_directory
from unhang.errors import AddressError

# Tried after $XDG_RUNTIME_DIR and the temporary directory: some are read-only, in containers for instance.
_PARENTS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - owner and mode of what is made in them are checked
_MADE = re.compile(r"[a-z]+-[0-9]+-[0-9a-f]{8}\.sock")
# More entries of a parent are not looked through for fresh directories.
_MOST_ENTRIES = 100_000


def well_known_directory(socket: str = "") -> str:
    """The first directory for sockets that can be used: ``$XDG_RUNTIME_DIR/unhang``, else ``unhang-UID``.

    The latter is under the temporary directory, or under ``/tmp``. Made if it is not there.

    Args:
        socket: the name of a socket for which there has to be room: a socket's path is short.

    Raises:
        AddressError: none can be used; for the reason of the last one.
    """
    refused = AddressError("", "there is no directory for it")
    for path in _well_known():
        try:
            return _made(path, socket)
        except AddressError as error:
            refused = error
    raise refused


def new_address(name: str) -> str:
    """An address for a watchdog of this process, in the well-known directory, else in a fresh one.

    The fresh directory is made by `make_fresh_directory`, when the socket is.

    Args:
        name: the beginning of the socket's name.

    Raises:
        AddressError: no directory can be used or made.
    """
    socket = _socket(name)
    try:
        return f"{well_known_directory(socket)}/{socket}"
    except AddressError as refused:
        return f"{fresh_directory(socket, refused)}/{socket}"


def is_for_one_run(address: str) -> bool:
    """Whether `new_address` made this address: no other watchdog will listen there when its own is gone."""
    return _MADE.fullmatch(os.path.basename(address)) is not None


def fresh_directory(socket: str, refused: AddressError) -> str:
    """The path of a directory that is not there yet, and can be made.

    Args:
        socket: the name of a socket for which there has to be room.
        refused: why no other directory can be used; raised if there is no place for this one either.
    """
    for parent in _parents():
        path = os.path.join(parent, f"{_name()}-{secrets.token_hex(8)}")
        if _has_room(path, socket) and os.access(parent, os.W_OK | os.X_OK, effective_ids=True):
            return path
    raise refused


def make_fresh_directory(address: str) -> None:
    """Make the directory of an address, if it is a fresh one that is not there yet.

    Raises:
        AddressError: it cannot be made, or another user has made it.
    """
    if is_fresh(os.path.dirname(address)):
        _made(*os.path.split(address))


def remove_fresh_directory(address: str) -> None:
    """Remove the directory of an address whose socket is gone, if it is a fresh one and empty."""
    if is_fresh(os.path.dirname(address)):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(address))


def directories_to_search() -> list[list[str]]:
    """Where watchdogs of this user may listen: the next group counts if none listens in the one before.

    These are the well-known directories, each for itself, up to the first that a watchdog would take now; then all
    fresh ones together.
    """
    groups = []
    for path in _well_known():
        try:
            groups.append([_made(path, "")])
        except AddressError:
            if _is_private(path):  # read-only by now
                groups.append([path])
            continue
        if _has_room(path, _socket("watchdog")):
            break
    return [*groups, [path for parent in _parents() for path in _fresh_ones(parent)]]


def _name() -> str:
    """``unhang-UID``, with the uid that this user has outside of the user namespace: root in there is not root.

    So it takes no name from another user who shares the temporary directory, and shares its own with itself.
    """
    user = os.geteuid()
    with contextlib.suppress(OSError, ValueError), open("/proc/self/uid_map") as ranges:
        for line in ranges:
            inside, outside, count = map(int, line.split())
            if inside <= user < inside + count:
                return f"unhang-{user - inside + outside}"
    return f"unhang-{user}"


def _well_known() -> Iterator[str]:
    runtime = _runtime_directory()
    if runtime:
        yield os.path.join(runtime, "unhang")
    for parent in dict.fromkeys((*_temporary_directory(), *_PARENTS[:1])):
        if _is_safe_parent(parent):
            yield os.path.join(parent, _name())


def _parents() -> list[str]:
    """Where fresh directories may be made, each once."""
    runtime = [path] if (path := _runtime_directory()) else []
    return [path for path in dict.fromkeys((*runtime, *_temporary_directory(), *_PARENTS)) if _is_safe_parent(path)]


def _runtime_directory() -> str:
    """``$XDG_RUNTIME_DIR``, if it is there and this user's; else nothing."""
    path = os.environ.get("XDG_RUNTIME_DIR", "")
    status = _directory(path) if os.path.isabs(path) else None
    return path if status is not None and status.st_uid == os.geteuid() and not status.st_mode & 0o022 else ""


def _temporary_directory() -> list[str]:
    """Python's, if there is one."""
    import tempfile

    try:
        return [os.path.abspath(tempfile.gettempdir())]
    except FileNotFoundError:
        return []


def _is_safe_parent(path: str) -> bool:
    """Whether only this user and the system's can replace what this user makes there."""
    try:
        status = os.stat(path)
        # In a user namespace, that of the system is an unmapped one, to which / belongs.
        owners = {os.geteuid(), 0, os.stat("/").st_uid}
    except OSError:
        return False
    alone = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_mode & stat.S_ISVTX
    return stat.S_ISDIR(status.st_mode) and status.st_uid in owners and bool(alone)


def _directory(path: str) -> os.stat_result | None:
    """The status of what is there, if it is a directory; a link is not followed."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status if stat.S_ISDIR(status.st_mode) else None


def _is_private(path: str) -> bool:
    status = _directory(path)
    return status is not None and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _socket(name: str) -> str:
    return f"{name}-{os.getpid()}-{secrets.token_hex(4)}.sock"


def _has_room(path: str, socket: str) -> bool:
    return len(os.fsencode(f"{path}/{socket}")) <= LONGEST


def _made(path: str, socket: str) -> str:
    """The path of a directory that this socket can be put into, which is made if nothing is there."""
    if not _has_room(path, socket):
        raise AddressError(path, f"a socket's path has {LONGEST} bytes at most; use a shorter one")
    try:
        with contextlib.suppress(FileExistsError):
            make_directory(path)
        status = os.lstat(path)
    except OSError as error:
        raise AddressError(path, f"its directory cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise AddressError(path, "it is not a directory (a link is not followed)")
    if status.st_uid != os.geteuid():
        raise AddressError(path, f"it belongs to another user (uid {status.st_uid})")
    if status.st_mode & 0o077:
        raise AddressError(path, f"others may enter it (mode {stat.S_IMODE(status.st_mode):o}); chmod 700 it")
    if status.st_mode & 0o700 != 0o700 or not os.access(path, os.W_OK, effective_ids=True):
        mode = stat.S_IMODE(status.st_mode)
        raise AddressError(path, f"nothing can be made there (mode {mode:o}, or a read-only file system)")
    return path


def is_fresh(path: str) -> bool:
    """Whether it is named as a fresh directory of this user is: it has one socket, and goes with it."""
    return bool(re.fullmatch(_name() + "-[0-9a-f]{16}", os.path.basename(path)))


def _fresh_ones(parent: str) -> list[str]:
    found = []
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for _, entry in zip(range(_MOST_ENTRIES), entries, strict=False):
            if is_fresh(entry.path) and _is_private(entry.path):
                found.append(entry.path)
    return sorted(found)
