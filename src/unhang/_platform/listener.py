"""The watchdog's end of the sockets: a path to listen at, and who it is that connects."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import stat
import threading

from unhang._core.messages import LONGEST, MOST_DESCRIPTORS
from unhang._core.page import PageError
from unhang._platform.address import check_address
from unhang._platform.descriptor import past_streams, socket_past_streams
from unhang._platform.fork import close_in_child
from unhang._platform.memfd import close_received
from unhang._platform.socket_directory import make_fresh_directory, remove_fresh_directory
from unhang.errors import AddressError

_BYTES_OF_DESCRIPTORS = MOST_DESCRIPTORS * array.array("i").itemsize


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

    def accept(self) -> socket.socket | None:
        """The next connection, not blocking; None when there is none.

        Raises:
            OSError: EMFILE or ENFILE: it was turned away, for want of descriptors.
        """
        try:
            peer, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            raise
        peer = socket_past_streams(peer)
        peer.setblocking(False)
        return peer

    def _turn_away(self) -> None:
        """Take a connection and close it: left in the queue, it would wake us for ever."""
        os.close(self._reserve)
        try:
            with contextlib.suppress(OSError):
                self._socket.accept()[0].close()
        finally:
            self._reserve = past_streams(os.open(os.devnull, os.O_RDONLY))

    def close(self) -> None:
        """Stop listening, and remove the path if it is still ours. May be called twice."""
        if self._socket.fileno() < 0:
            return
        self._socket.close()
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


def hang_up(peer: socket.socket) -> None:
    """Close a connection, in a thread if there is something unread: it may hold descriptors that are slow to close."""
    try:
        unread = bool(peer.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
    except OSError:
        unread = False
    if unread:
        threading.Thread(target=peer.close, name="unhang-close", daemon=True).start()
    else:
        peer.close()


def receive(peer: socket.socket) -> tuple[bytes, list[int]]:
    """The next message, and the descriptors that came with it, which are the caller's to close.

    An empty message means that the worker has hung up.

    Raises:
        BlockingIOError: there is none.
        PageError: a descriptor was lost.
        OSError: the connection is broken.
    """
    message, ancillary, flags, _ = peer.recvmsg(
        LONGEST, socket.CMSG_SPACE(_BYTES_OF_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
    )
    fds: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received = array.array("i")
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
            fds += received
    sent, fds = fds, []
    for fd in sent:
        with contextlib.suppress(OSError):
            fds.append(past_streams(fd))
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or len(fds) < len(sent):
        for fd in fds:
            close_received(fd)
        if flags & socket.MSG_TRUNC:
            raise PageError(f"it has more than {LONGEST} bytes")
        raise PageError("it was sent, but not received: the watchdog is short of descriptors (ulimit -n)")
    return message, fds
