"""Closing what other processes have sent, which may take any time: a socket that lingers, a file on a network.

The threads that do it are few, and so are those that wait for them; see `Disposal.has_room`.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Sequence

from unhang._platform.fork import close_in_child

_MOST_THREADS = 4
# Connections and lots of descriptors that wait for a thread while others are still let in.
_MOST_WAITING = 64
# Seconds for which a thread that has nothing to do stays.
_IDLE = 10.0
# Messages that one connection may hold unread: the kernel's own bound is lower, unless it was raised.
_MOST_UNREAD = 64
_CREDENTIALS = socket.CMSG_SPACE(struct.calcsize("3i"))


class Disposal:
    """Closes connections and descriptors without ever keeping the caller waiting. Thread-safe, but for `close`."""

    def __init__(self) -> None:
        self._waiting: collections.deque[socket.socket | Sequence[int]] = collections.deque()
        self._changed = threading.Condition()
        self._threads = self._idle = 0
        close_in_child(self)

    def has_room(self) -> bool:
        """Whether more connections may be let in: each may have to wait here until it is closed."""
        return len(self._waiting) < _MOST_WAITING

    def hang_up(self, peer: socket.socket) -> None:
        """Close a connection, here if it holds no descriptors unread, else in a thread."""
        if _drop_unread(peer):
            peer.close()
        else:
            self._put(peer)

    def close_all(self, fds: Sequence[int]) -> None:
        """Close descriptors that somebody else has sent, in a thread."""
        if fds:
            self._put(fds)

    def _put(self, what: socket.socket | Sequence[int]) -> None:
        with self._changed:
            self._waiting.append(what)
            if len(self._waiting) > self._idle and self._threads < _MOST_THREADS:
                self._threads += 1
                threading.Thread(target=self._run, name="unhang-close", daemon=True).start()
            self._changed.notify()

    def _run(self) -> None:
        while (what := self._next()) is not None:
            if isinstance(what, socket.socket):
                _close_connection(what)
            else:
                _close_each(what)

    def _next(self) -> socket.socket | Sequence[int] | None:
        """What is to be closed next; None: this thread is not needed any more."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting, _IDLE)
            self._idle -= 1
            if self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            return None

    def close(self) -> None:
        """In a forked child, which has no such threads: give back its copies of what waits."""
        while self._waiting:
            what = self._waiting.popleft()
            if isinstance(what, socket.socket):
                what.close()
            else:
                _close_each(what)


def _drop_unread(peer: socket.socket) -> bool:
    """Receive nothing more, and drop what is unread up to the first descriptors; returns whether there are none.

    A message that is dropped is closed by the kernel with all its descriptors, which waits as any other close.
    """
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_RD)
        # With it, an empty message is distinguished from the end: it has credentials.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    for _ in range(_MOST_UNREAD):
        try:
            _, ancillary, flags, _ = peer.recvmsg(1, _CREDENTIALS, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            if flags & socket.MSG_CTRUNC:
                return False
            if not ancillary:
                return True
            peer.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            continue  # an error of the connection is reported once, before what is unread
    return False


def _close_connection(peer: socket.socket) -> None:
    """Drop what is unread, so that the other side gets the answer and not a reset; then close."""
    with contextlib.suppress(OSError):
        for _ in range(_MOST_UNREAD):
            peer.recv(1, socket.MSG_DONTWAIT)
    peer.close()


def _close_each(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
