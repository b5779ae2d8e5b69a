"""One connection of a worker to a watchdog: a socket that never blocks once the watchdog has answered."""

from __future__ import annotations

import _socket
import array
import os
import socket
import struct
from collections.abc import Sequence

from unhang._core import real_time as time
from unhang._core.messages import LONGEST, MessageError, clock_of, refusal
from unhang._platform import ptracer
from unhang._platform.address import check_address
from unhang._platform.credentials import peer_credentials
from unhang._platform.descriptor import Descriptor, past_streams, socket_past_streams
from unhang.errors import AddressError

# Seconds between two attempts to connect to a watchdog whose queue of connections is full.
_BUSY_PAUSE = 0.01
# The kernel's struct ucred: pid, uid, gid.
_CREDENTIALS = struct.Struct("3i")


_OTHER_CLOCK = (
    "its monotonic clock shows another time than the one of this process (libfaketime, a time namespace): no deadline "
    "would mean the same to both"
)


class NotWatchedError(Exception):
    """The watchdog does not watch us; the message says why.

    Attributes:
        refused: whether it said so itself.
        nobody: whether nobody listens there at all.
    """

    def __init__(self, reason: str, *, refused: bool = False, nobody: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused
        self.nobody = nobody


def is_deserted(address: str) -> bool:
    """Whether nothing listens at an address; no, if that cannot be told."""
    if not hasattr(socket, "AF_UNIX"):
        return False
    try:
        probe = _new_socket()
    except OSError:
        return False
    try:
        probe.setblocking(False)
        probe.connect(address)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError:
        pass
    finally:
        probe.close()
    return False


def _new_socket() -> socket.socket:
    """One of the system, also where a program has made those of Python green (eventlet): half of it would not wait."""
    return _socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # type: ignore[return-value]


class Connection:
    """An open connection. Not thread-safe.

    Attributes:
        stack_file: the descriptor that came with the answer, the caller's to close; -1 if none did.
    """

    def __init__(self, address: str, hello: bytes, pages: Sequence[int], patience: float) -> None:
        """Connect, hand the pages over, and wait for the answer.

        Args:
            address: the path of the watchdog's socket.
            hello: the first message.
            pages: descriptors.
            patience: seconds that all of it may take.

        Raises:
            NotWatchedError: it did not come to it.
        """
        give_up = time.monotonic() + patience
        self.stack_file = -1
        try:
            self._socket = socket_past_streams(_new_socket())
        except OSError as error:
            raise NotWatchedError(_reason(error)) from error
        try:
            self._connect(check_address(address), give_up)
            self._check_peer()
            self._greet(hello, pages, give_up)
            self._socket.setblocking(False)
            self._descriptor = Descriptor(self._socket.fileno())
        except BaseException as error:
            self._socket.close()
            if isinstance(error, (OSError, AddressError, MessageError)):
                nobody = isinstance(error, (ConnectionRefusedError, FileNotFoundError))
                raise NotWatchedError(_reason(error), nobody=nobody) from error
            raise

    def _connect(self, address: str, give_up: float) -> None:
        self._socket.settimeout(max(0.0, give_up - time.monotonic()))
        while True:
            try:
                return self._socket.connect(address)
            except BlockingIOError:
                # A unix socket does not wait for room in the queue when it has a timeout.
                if time.monotonic() > give_up:
                    raise TimeoutError from None
                time.sleep(_BUSY_PAUSE)

    def _check_peer(self) -> None:
        if not hasattr(socket, "SO_PEERCRED"):
            raise OSError("this system does not say who listens there")
        _, user = peer_credentials(self._socket)
        if user not in (os.geteuid(), 0):
            raise OSError(f"another user listens there (uid {user})")

    def _greet(self, hello: bytes, pages: Sequence[int], give_up: float) -> None:
        self._socket.settimeout(max(0.001, give_up - time.monotonic()))
        # So that the kernel says who answers, which need not be who listened first.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sent = time.monotonic_ns()
        self._send(hello, pages)
        answer, watchdog = self._receive()
        received = time.monotonic_ns()
        if not answer:
            raise OSError("it closed the connection")
        reason = refusal(answer)
        if reason is not None:
            raise NotWatchedError(reason, refused=True)
        if not sent <= clock_of(answer) <= received:
            raise NotWatchedError(_OTHER_CLOCK, refused=True)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        ptracer.allow(watchdog)

    def _receive(self) -> tuple[bytes, int]:
        """The answer, and the pid of whoever sent it; keeps the descriptor that came with it."""
        sender = 0
        space = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(array.array("i").itemsize)
        answer, ancillary, _, _ = self._socket.recvmsg(LONGEST, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                sender = _CREDENTIALS.unpack(data)[0]
            elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self.stack_file = past_streams(array.array("i", data)[0])
        return answer, sender

    def _send(self, message: bytes, pages: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", pages))] if pages else []
        self._socket.sendmsg([message], rights, socket.MSG_NOSIGNAL)

    def send(self, message: bytes, pages: Sequence[int] = ()) -> bool:
        """Send without waiting; False when the connection is dead, or when pages could not be sent."""
        if not self._descriptor.is_ours():
            return False
        try:
            self._send(message, pages)
        except BlockingIOError:
            return not pages  # the watchdog has enough to read already
        except OSError:
            return False
        return True

    def is_alive(self) -> bool:
        """Whether there is still somebody at the other end."""
        if not self._descriptor.is_ours():
            return False
        try:
            return bool(self._socket.recv(LONGEST, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Hang up. May be called twice."""
        self._descriptor.close()
        self._socket.detach()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer: it is stopped, or has too much to do"
    if isinstance(error, AddressError):
        return error.reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
