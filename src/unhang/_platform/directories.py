"""Directories made with a certain mode: the umask may be one with which a new one could not even be entered."""

from __future__ import annotations

import contextlib
import os

PRIVATE = 0o700


def make_directory(path: str, mode: int = PRIVATE) -> None:
    """Make a directory with just this mode.

    Its parent must be one in which no other user can replace what this user has made.

    Raises:
        OSError: it cannot be made; FileExistsError: something is there.
    """
    os.mkdir(path, mode)
    os.chmod(path, mode)


def make_directories(path: str) -> None:
    """Make a directory, and those above it, each for this user alone; what is there already stays as it is.

    Raises:
        OSError: one cannot be made.
    """
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path.rstrip("/"))
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            make_directory(each)
