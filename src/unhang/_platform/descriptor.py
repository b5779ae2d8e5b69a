"""Descriptors that may be closed behind our back: daemons close all that they find, and the numbers are given anew."""

from __future__ import annotations

import contextlib
import os

from unhang._platform.finalizer import finalizer


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
