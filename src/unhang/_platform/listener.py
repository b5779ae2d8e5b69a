"""The watchdog's end of the sockets: a path to listen at, and who it is that connects."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import stat

from unhang._core.messages import LONGEST, MOST_PAGES, MessageError, may_have_pages
from unhang._core.page import PageError
from unhang._platform import memfd
from unhang._platform.address import check_address
from unhang._platform.descriptor import past_streams, socket_past_streams
from unhang._platform.disposal import Disposal
from unhang._platform.fork import close_in_child
from unhang._platform.socket_directory import make_fresh_directory, remove_fresh_directory
from unhang.errors import AddressError


class Listener:
    """A socket that listens at a path; the path is removed with it, and so is a fresh directory.

    Args:
        address: the path; a socket that nobody listens at any more is replaced.
        mode: of the socket's file.
        fd: a socket that listens there already.

    Raises:
        AddressError: the address is not safe, or something else stands there.
    """

    def __init__(self, address: str, mode: int = 0o600, fd: int | None = None) -> None:
        make_fresh_directory(address)
        self.address = check_address(address)
        self._socket = self._bound(mode) if fd is None else socket.socket(fileno=fd)
        self._socket.setblocking(False)
        status = os.stat(address)
        self._inode = status.st_dev, status.st_ino
        # Given up for a moment when there is no descriptor left to accept, and so turn away, a connection with.
        self._reserve = past_streams(os.open(os.devnull, os.O_RDONLY))
        close_in_child(self)
        self._owner = os.getpid()

    def _bound(self, mode: int) -> socket.socket:
        _remove_stale(self.address)
        listener = socket_past_streams(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        try:
            listener.bind(self.address)
            os.chmod(self.address, mode)
            listener.listen(socket.SOMAXCONN)
        except OSError as error:
            listener.close()
            raise AddressError(self.address, f"a socket cannot be made there: {error.strerror}") from error
        return listener

    def fileno(self) -> int:
        """For waiting."""
        return self._socket.fileno()

    def accept(self, disposal: Disposal) -> socket.socket | None:
        """The next connection, not blocking; None when there is none.

        Raises:
            OSError: EMFILE or ENFILE: it was turned away, for want of descriptors, unless the one that is kept for
                that is gone as well (`can_turn_away`).
        """
        try:
            peer, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away(disposal)
            raise
        peer = socket_past_streams(peer)
        peer.setblocking(False)
        return peer

    def _turn_away(self, disposal: Disposal) -> None:
        """Take a connection and close it: left in the queue, it would wake us for ever."""
        if not self.can_turn_away():
            return
        os.close(self._reserve)
        self._reserve = -1
        with contextlib.suppress(OSError):
            disposal.hang_up(self._socket.accept()[0])
        self.can_turn_away()

    def can_turn_away(self) -> bool:
        """Whether there is a descriptor for that; if not, a new one is tried."""
        if self._reserve < 0:
            with contextlib.suppress(OSError):
                self._reserve = past_streams(os.open(os.devnull, os.O_RDONLY))
        return self._reserve >= 0

    def close(self) -> None:
        """Stop listening, and remove the path if it is still ours. May be called twice."""
        if self._socket.fileno() < 0:
            return
        self._socket.close()
        if self._reserve >= 0:
            os.close(self._reserve)
        if os.getpid() != self._owner:
            return
        with contextlib.suppress(OSError):
            status = os.stat(self.address)
            if (status.st_dev, status.st_ino) == self._inode:
                os.unlink(self.address)
        remove_fresh_directory(self.address)


def _remove_stale(address: str) -> None:
    """Remove the socket of a watchdog that is gone.

    Raises:
        AddressError: somebody listens there, or it is no socket.
    """
    try:
        status = os.lstat(address)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        raise AddressError(address, "something else stands there; it was left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            os.unlink(address)
            return
        except OSError as error:
            raise AddressError(address, f"something else stands there ({error.strerror}); it was left alone") from error
    raise AddressError(address, "a watchdog listens there already; stop it first, or use another address")


def receive(peer: socket.socket, disposal: Disposal) -> tuple[bytes, list[int]]:
    """The next message, and the descriptors that came with it, which are the caller's to close: memory that is sealed.

    The message is looked at before it is received. One that has descriptors which it may not have is left where it is:
    if the kernel threw them away for us, this thread would wait for each until it is closed.
    An empty message means that the worker has hung up.

    Raises:
        BlockingIOError: there is none.
        MessageError: it has descriptors, and is none of those that have.
        PageError: it has too many, or one that is no page, or one was lost.
        OSError: the connection is broken.
    """
    message, _, flags, _ = peer.recvmsg(LONGEST, 0, socket.MSG_PEEK)
    if flags & socket.MSG_TRUNC:
        raise PageError(f"it has more than {LONGEST} bytes")
    fds: list[int] = []
    if flags & socket.MSG_CTRUNC:
        if not message:
            return message, fds
        if not may_have_pages(message):
            raise MessageError(f"it has descriptors, which no such message has: {message[:16]!r}")
        fds = _look_at_pages(peer, disposal)
    if message:
        # The kernel closes its descriptors, which takes no time: we hold copies.
        peer.recv(1)
    return message, fds


def _look_at_pages(peer: socket.socket, disposal: Disposal) -> list[int]:
    """Copies of the descriptors of the next message."""
    fds = array.array("i")
    space = socket.CMSG_SPACE(MOST_PAGES * fds.itemsize)
    _, ancillary, flags, _ = peer.recvmsg(1, space, socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if flags & socket.MSG_CTRUNC:
        disposal.close_all(fds)
        if len(fds) < MOST_PAGES:
            raise PageError("it was sent, but not received: the watchdog is short of descriptors (ulimit -n)")
        raise PageError(f"a message has {MOST_PAGES} pages at most")
    try:
        for number, fd in enumerate(fds):
            fds[number] = past_streams(fd)
        for fd in fds:
            memfd.check_sealed(fd)
    except BaseException:
        disposal.close_all(fds)
        raise
    return list(fds)
