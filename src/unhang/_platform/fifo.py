"""Named pipes: made for us alone, opened without waiting, removed only if they are ours."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import stat
from typing import Any

from unhang._core import real_time as time
from unhang._platform.descriptor import past_streams
from unhang._platform.finalizer import finalizer
from unhang._platform.fork import close_in_child
from unhang._platform.waiter import Waiter
from unhang.errors import NoTimerServerError, NotOurPipeError, PipeFullError

logger = logging.getLogger(__name__)

# Linux lets anyone have a pipe of this size. It holds what workers write while the server cannot look.
_ROOM = 1 << 20
_F_SETPIPE_SZ = 1031
# Bytes read at once: what comes in a nap, mostly.
_PIECE = 1 << 18
_KINDS = {stat.S_IFREG: "an ordinary file", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link"}


class Fifo:
    """The named pipe of a server: the path, and which inode there is ours.

    It belongs to the process that made it, or to the last one that opened it: a forked child, or one that it was
    pickled for.
    """

    def __init__(self, path: str) -> None:
        """Make the pipe, mode 0600; one that we left there earlier is replaced.

        Raises:
            NotOurPipeError: something else stands at the path; it is left alone.
        """
        self.path = path
        self._pin = -1
        self._clear()
        try:
            os.mkfifo(path, 0o600)
        except FileExistsError:
            raise NotOurPipeError(path, "something that appeared just now") from None
        self._pin_down()
        self._inode = _identity(os.lstat(path))
        self._owner = os.getpid()

    def _pin_down(self) -> None:
        """Hold the inode, whose number another file would get once it is gone; this opens neither end of the pipe."""
        if hasattr(os, "O_PATH"):
            self._pin = past_streams(os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_pin": -1}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        with contextlib.suppress(OSError):
            self._pin_down()

    def _clear(self) -> None:
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISFIFO(there.st_mode):
            raise NotOurPipeError(self.path, _KINDS.get(stat.S_IFMT(there.st_mode), "a special file"))
        if there.st_uid != os.geteuid():
            raise NotOurPipeError(self.path, f"a named pipe of another user (uid {there.st_uid})")
        if _has_reader(self.path):
            logger.warning("Replacing the named pipe %s, which another server still reads", self.path)
        os.unlink(self.path)

    def exists(self) -> bool:
        """Whether the pipe that we made still stands at its path."""
        with contextlib.suppress(OSError):
            return _identity(os.lstat(self.path)) == self._inode
        return False

    def remove(self) -> None:
        """Remove the pipe if it is the one that was made, and belongs to this process."""
        if os.getpid() == self._owner and self.exists():
            os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Give the descriptor back; the pipe stays. May be called twice."""
        pin, self._pin = self._pin, -1
        if pin >= 0:
            os.close(pin)

    __del__ = finalizer(close)

    def open(self, waiter: Waiter) -> FifoReader:
        """Open the pipe for reading, and add it to what is waited for; does not wait for a writer.

        Raises:
            NotOurPipeError: something else stands at the path by now.
        """
        reader = FifoReader(self.path, self._inode, waiter)
        self._owner = os.getpid()
        return reader


def _has_reader(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _identity(there: os.stat_result) -> tuple[int, int]:
    return there.st_dev, there.st_ino


class FifoReader:
    """The reading end of a named pipe, and the wait on it. It belongs to the server's loop."""

    def __init__(self, path: str, inode: tuple[int, int], waiter: Waiter) -> None:
        flags = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = past_streams(os.open(path, os.O_RDONLY | flags))
        if _identity(os.fstat(self._fd)) != inode:
            os.close(self._fd)
            raise NotOurPipeError(path, "not the pipe that was made there")
        # With a writer of our own the pipe never reports its end, which would make every wait return.
        self._writer = past_streams(os.open(path, os.O_WRONLY | flags))
        enlarge(self._fd)
        self._waiter = waiter
        waiter.watch(self._fd)
        close_in_child(self)

    def read(self) -> bytes:
        """All that is there, at most what the pipe can hold; never waits."""
        return read_available(self._fd)

    def wait(self, timeout: float) -> bool:
        """See `Waiter.wait`."""
        return self._waiter.wait(timeout)

    def poll(self) -> bool:
        """See `Waiter.poll`."""
        return self._waiter.poll()

    @property
    def closed(self) -> bool:
        """Whether it was closed: by `close`, or since this is a forked child."""
        return self._fd < 0

    def close(self) -> None:
        """Give the descriptors back. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._waiter.forget(fd)
            os.close(fd)
            os.close(self._writer)


class FifoWriter(io.TextIOBase):
    """The writing end: each `write` is one atomic write of at most ``PIPE_BUF`` bytes."""

    def __init__(self, path: str, patience: float) -> None:
        """Open the pipe without waiting for a reader.

        Args:
            path: the path of the named pipe.
            patience: seconds to wait, at most, while the pipe is full.

        Raises:
            OSError: there is no pipe, or nobody reads it (ENOENT, ENXIO).
            NotOurPipeError: something else stands at the path.
        """
        super().__init__()
        self._path = path
        self._patience = patience
        self._fd = -1
        self._fd = past_streams(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        kind = stat.S_IFMT(os.fstat(self._fd).st_mode)
        if kind != stat.S_IFIFO:
            self.close()
            raise NotOurPipeError(path, _KINDS.get(kind, "a special file"))

    def write(self, text: str) -> int:
        """Write all of ``text``, or raise.

        Raises:
            PipeFullError: the pipe was full all the while.
            NoTimerServerError: the reader has gone.
        """
        try:
            if not write_patiently(self._fd, text.encode(), self._patience):
                raise PipeFullError(self._path, self._patience)
        except BrokenPipeError as error:
            raise NoTimerServerError(self._path, error.strerror or "gone") from None
        return len(text)

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        super().close()


def enlarge(fd: int) -> None:
    """Give a pipe more room, if the system lets us."""
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", _F_SETPIPE_SZ), _ROOM)


def read_available(fd: int) -> bytes:
    """What a non-blocking pipe holds, at most about `_ROOM` bytes: a writer that never pauses keeps nobody here."""
    data = b""
    try:
        # A read of a pipe that yields less than it was asked for has emptied it.
        while len(data) < _ROOM and (piece := os.read(fd, _PIECE)):
            data = data + piece if data else piece
            if len(piece) < _PIECE:
                break
    except BlockingIOError:
        pass
    return data


def write_patiently(fd: int, data: bytes, patience: float) -> bool:
    """One atomic write to a non-blocking pipe; False when it was full for ``patience`` seconds."""
    try:
        return os.write(fd, data) == len(data)
    except BlockingIOError:
        give_up = time.monotonic() + patience
    while (now := time.monotonic()) < give_up:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        poll.poll((give_up - now) * 1000 + 1)
        with contextlib.suppress(BlockingIOError):
            return os.write(fd, data) == len(data)
    return False
