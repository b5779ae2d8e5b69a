"""Descriptors of ours in processes of others.

A program that was started without a standard stream leaves its number, 0, 1 or 2, to the next descriptor that is
opened, and whatever prints to that stream then writes there: C code does not know that it is closed. Hence each
descriptor that we keep, or write to, goes through `past_streams`. And daemons close all descriptors that they find, the
numbers of which are given anew: hence `Descriptor`.
"""

from __future__ import annotations

import contextlib
import os

from unhang._platform.finalizer import finalizer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

STREAMS = (0, 1, 2)
_FIRST = len(STREAMS)


def is_stream(fd: int) -> bool:
    """Whether it is the number of a standard stream."""
    return fd < _FIRST


def past_streams(fd: int) -> int:
    """The descriptor itself, or, where that is the number of a standard stream, a copy of it, and the number is free.

    Raises:
        OSError: this process is short of descriptors. The one that was given is closed.
    """
    if not is_stream(fd):
        return fd
    from fcntl import F_DUPFD_CLOEXEC, fcntl  # POSIX only, and rarely needed

    try:
        return fcntl(fd, F_DUPFD_CLOEXEC, _FIRST)
    finally:
        os.close(fd)


def socket_past_streams(made: socket) -> socket:
    """As `past_streams`, for a socket that was just made; raises as that."""
    return type(made)(fileno=past_streams(made.detach())) if is_stream(made.fileno()) else made


def pipe_past_streams() -> tuple[int, int]:
    """A pipe, neither end of which is a standard stream: the one to read, and the one to write.

    Raises:
        OSError: this process is short of descriptors.
    """
    reader, writer = os.pipe()
    try:
        reader = past_streams(reader)
    except BaseException:
        os.close(writer)
        raise
    try:
        return reader, past_streams(writer)
    except BaseException:
        os.close(reader)
        raise


def streams_of(fd: int) -> int:
    """How many standard streams are the same file as this descriptor."""
    wanted = Descriptor(fd)._opened
    return sum(Descriptor(number)._opened == wanted for number in STREAMS)


def hold_streams() -> None:
    """In a process of ours: let nothing be opened as a standard stream that is closed.

    Each is held by a descriptor that can be neither read nor written, and that is closed in what this process starts:
    for everybody the stream is as closed as before. To be called before anything else is opened.
    """
    path_only = getattr(os, "O_PATH", None)
    if path_only is None:
        return
    while is_stream(fd := os.open("/", path_only | os.O_CLOEXEC)):
        pass
    os.close(fd)


class Descriptor:
    """A descriptor that knows what it was opened for. Not thread-safe."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._opened = self._what()

    def _what(self) -> tuple[int, int] | None:
        try:
            status = os.fstat(self.fd)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def is_ours(self) -> bool:
        """Whether the number still stands for what it was opened for."""
        return self._opened is not None and self._what() == self._opened

    def close(self) -> None:
        """Give it back, if it is still ours. May be called twice."""
        if self.is_ours():
            os.close(self.fd)
        self._opened = None


class OwnFd:
    """A descriptor that is closed with the last reference to it, for one that several threads use."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fd)

    __del__ = finalizer(_close)
