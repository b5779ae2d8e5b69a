"""Reads what was learned of how long blocks take. A worker does so once, when it first asks for a learned budget."""

from __future__ import annotations

import errno
import logging
import os
import stat

from unhang._core.histogram import Durations
from unhang._core.learned import MOST_BYTES, FormatError, Learned, decode

logger = logging.getLogger("unhang")

# A pipe in its place must not be waited for.
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


def read_durations(path: str) -> dict[str, Durations]:
    """What is known of each scope; nothing, and a warning in the log, if the file cannot or must not be used.

    That it is not there yet is no reason for a warning. Never raises, and never waits but for the file system.
    """
    try:
        learned = read(path)
    except FileNotFoundError:
        return {}
    except (OSError, FormatError, ValueError) as error:
        logger.warning("no budgets are learned from %s, so each is its maximum: %s", path, reason(error))
        return {}
    return {scope: memory.durations for scope, memory in learned.scopes.items()}


def reason(error: Exception) -> str:
    """What is wrong with a file, without its path."""
    if isinstance(error, OSError):
        return "it is a link, which is not followed" if error.errno == errno.ELOOP else str(error.strerror)
    return str(error)


def read(path: str, directory: int | None = None) -> Learned:
    """What a file holds. It belongs to this user or root, and nobody else may write to it.

    Args:
        path: the file.
        directory: a descriptor of the directory that a relative path starts from.

    Raises:
        FormatError: it is none of these files.
        OSError: it cannot be read, or must not be used.
    """
    descriptor = os.open(path, _FLAGS, dir_fd=directory)
    try:
        _check(os.fstat(descriptor))
        return decode(_all(descriptor))
    finally:
        os.close(descriptor)


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FormatError("it is no plain file")
    if status.st_uid not in (os.geteuid(), 0):
        raise PermissionError(errno.EPERM, f"it belongs to another user (uid {status.st_uid})")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise PermissionError(errno.EPERM, f"others may write to it (mode {mode:o}); chmod 600 it")
    if status.st_size > MOST_BYTES:
        raise FormatError(f"it has more than {MOST_BYTES >> 20} MiB")


def _all(descriptor: int) -> bytes:
    """What can be read, which may be more than there was a moment ago."""
    parts = []
    rest = MOST_BYTES
    while rest > 0 and (part := os.read(descriptor, min(rest, 1 << 20))):
        parts.append(part)
        rest -= len(part)
    return b"".join(parts)
