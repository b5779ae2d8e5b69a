"""Where lines are written: a file that nobody else could have put there, or a standard stream."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path
from typing import Protocol

from unhang._platform.descriptor import past_streams
from unhang._platform.line_writer import LineWriter
from unhang.errors import UnhangError

logger = logging.getLogger("unhang.observe")

_STREAMS = {"-": 2, "/dev/stderr": 2, "/dev/stdout": 1}
_FLAGS = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # whatever stands there by then
    | getattr(os, "O_NOCTTY", 0)
)


class EventsError(UnhangError, OSError):
    """Events must not, or cannot, be written there.

    Attributes:
        target: where.
        reason: why not.
    """

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(errno.EPERM, reason, target)
        self.target = target
        self.reason = reason

    def __str__(self) -> str:
        return f"no events can be written to {self.target!r}: {self.reason}"


class Target(Protocol):
    """Takes lines. One thread writes."""

    name: str

    def write(self, line: bytes) -> None:
        """Write a line, of ``PIPE_BUF`` bytes at most; whole, if need be later, or not at all: then raise OSError."""

    def give_up(self) -> None:
        """Let a `write` that waits raise, if that can be had; for another thread."""

    def close(self) -> None:
        """Give the descriptor back."""


def target_of(name: str) -> Target:
    """A standard stream, or a file.

    Raises:
        EventsError: it must not, or cannot, be used.
    """
    fd = _STREAMS.get(name)
    return File(name) if fd is None else Stream(name, fd)


class Stream:
    """A standard stream of this process, whatever it is. A pipe or terminal that nobody reads is waited for.

    Args:
        name: what it is called.
        fd: its descriptor, which stays open.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        try:
            self._fd = past_streams(os.dup(fd))
        except OSError as error:
            raise EventsError(name, "it is closed") from error
        self._writer = LineWriter(self._fd)

    def write(self, line: bytes) -> None:
        """See `Target.write`."""
        self._writer.write(line)

    def give_up(self) -> None:
        """See `Target.give_up`."""
        self._writer.give_up()

    def close(self) -> None:
        """See `Target.close`."""
        os.close(self._fd)


class File:
    """A file to append to, which may be moved away at any time: then another one is begun.

    Args:
        path: where; a link is refused.

    Raises:
        EventsError: what stands there is not a file of this user's alone, or none can be made.
    """

    def __init__(self, path: str) -> None:
        self.name = str(Path(path).absolute())
        self._fd = _open(self.name)
        self._is_torn = False
        self._is_told = False

    def write(self, line: bytes) -> None:
        """See `Target.write`."""
        if not self._is_there():
            self._open_again()
        if self._is_torn:
            line = b"\n" + line
        written = os.write(self._fd, line)
        if written < len(line):
            self._take_back(written)
            raise OSError(errno.ENOSPC, "there is no room for a whole line")
        self._is_torn = False

    def _is_there(self) -> bool:
        try:
            there = os.lstat(self.name)
        except OSError:
            return False
        ours = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _open_again(self) -> None:
        try:
            fd = _open(self.name)
        except OSError as error:
            if not self._is_told:
                logger.warning("%s; they go on into the file that was there before", error)
            self._is_told = True
            return
        os.close(self._fd)
        self._fd = fd
        self._is_torn = self._is_told = False

    def _take_back(self, written: int) -> None:
        """Remove what was written of a line for which there was no room."""
        end = os.lseek(self._fd, 0, os.SEEK_CUR)
        try:
            # Not if somebody else has appended a line meanwhile.
            if os.fstat(self._fd).st_size == end:
                os.ftruncate(self._fd, end - written)
        except OSError:
            self._is_torn = True  # then it gets a line of its own

    def give_up(self) -> None:
        """See `Target.give_up`. A write to a disk that hangs cannot be helped."""

    def close(self) -> None:
        """See `Target.close`."""
        os.close(self._fd)


def _open(path: str) -> int:
    try:
        _check_directory(path, Path(path).parent.stat())
        if os.path.lexists(path):
            # Before it is opened, which alone may have consequences if it is a device.
            _check(path, os.lstat(path))
        fd = past_streams(os.open(path, _FLAGS, 0o600))
    except EventsError:
        raise
    except OSError as error:
        raise EventsError(path, error.strerror or str(error)) from error
    try:
        _check(path, os.fstat(fd))
    except EventsError:
        os.close(fd)
        raise
    return fd


def _check_directory(path: str, status: os.stat_result) -> None:
    """In a sticky directory, such as /tmp, nobody can take away what is another's."""
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise EventsError(path, "anybody may write to its directory; use one of your own")
    if status.st_uid not in {os.geteuid(), 0}:
        raise EventsError(path, f"its directory belongs to another user (uid {status.st_uid})")


def _check(path: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise EventsError(path, "it is a link; name the file itself")
    if not stat.S_ISREG(status.st_mode):
        raise EventsError(path, "it is not a file; write to standard error (-) to let another program have them")
    if status.st_uid != os.geteuid():
        raise EventsError(path, f"it belongs to another user (uid {status.st_uid})")
    if status.st_nlink > 1:
        raise EventsError(path, "it has another name as well: a hard link is not followed")
