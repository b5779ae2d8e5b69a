"""Files that are there as a whole or not at all, in a directory that is held open."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable

from unhang._core import real_time as time
from unhang._platform.descriptor import past_streams

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# Seconds, after which a file that was never finished is nobody's any more.
_STALE = 3600.0


def write_whole(directory: int, name: str, document: bytes, *, unfinished: str, durable: bool = False) -> None:
    """Put a file, mode 0600, in the place of what has its name.

    Args:
        directory: a descriptor of the directory.
        name: of the file.
        document: its content.
        unfinished: what the name of the file begins with until it is finished; see `remove_stale`.
        durable: whether it is to survive a loss of power from the moment at which this returns.

    Raises:
        OSError: it cannot be written; nothing is left of it, and what it would replace is still there.
    """
    temporary = f"{unfinished}-{secrets.token_hex(8)}.tmp"
    descriptor = past_streams(os.open(temporary, _NEW, 0o600, dir_fd=directory))
    try:
        try:
            rest = memoryview(document)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            if durable:
                os.fsync(descriptor)
        finally:
            # Where files are far away, it is closing that fails.
            os.close(descriptor)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    if durable:
        # Otherwise a loss of power may take the name back.
        os.fsync(directory)


def remove_stale(directory: int, unfinished: str, clock: Callable[[], float] = time.time) -> None:
    """Remove what a process that died has left half written; that it cannot be is no failure.

    Args:
        directory: a descriptor of the directory.
        unfinished: as for `write_whole`.
        clock: seconds of the wall clock, as the times of files are.
    """
    named = re.compile(rf"{re.escape(unfinished)}-[0-9a-f]{{16}}\.tmp")
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if named.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if clock() - entry.stat(follow_symlinks=False).st_mtime > _STALE:
                        os.unlink(entry.name, dir_fd=directory)
