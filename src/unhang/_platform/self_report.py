"""A process that writes down its own stacks when it is signalled, whatever it is doing: `faulthandler` on a signal.

The handler is C code that takes no lock and needs no GIL. It interrupts system calls, as any handler does, so it is
for a process that is about to be killed.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal

from unhang._platform.descriptor import Descriptor

# A program that closes all descriptors is given the low numbers again for files of its own: stacks must not go there.
_LOWEST_FD = 200


class SelfReport:
    """The handler of one client, for one real-time signal that nobody else in this process uses.

    Attributes:
        number: the signal; 0: this process cannot have one.
    """

    def __init__(self) -> None:
        self.number = _free_signal()
        self._file: Descriptor | None = None

    def write_to(self, fd: int) -> None:
        """From now on, write the stacks of all threads into this file, which is taken over."""
        try:
            high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
        except OSError:
            high = fd  # beyond the limit of descriptors
        else:
            os.close(fd)
        before, self._file = self._file, Descriptor(high)
        try:
            if self.is_usable():
                faulthandler.register(self.number, file=high, all_threads=True, chain=False)
        except (OSError, RuntimeError, ValueError):
            self.close()
        if before is not None:
            before.close()

    def close(self) -> None:
        """Write nothing any more."""
        if self._file is not None:
            if self.is_usable():
                faulthandler.unregister(self.number)
            self._file.close()
            self._file = None

    def is_usable(self) -> bool:
        """Whether the program has not taken the signal for itself meanwhile: its handler stays then."""
        return self.number > 0 and signal.getsignal(self.number) in (signal.SIG_DFL, None)


def _free_signal() -> int:
    """The highest real-time signal that this process neither handles nor ignores nor blocks; 0: none."""
    if not hasattr(faulthandler, "register") or not hasattr(signal, "SIGRTMAX"):
        return 0
    try:
        with open("/proc/self/status", "rb") as file:
            status = file.read()
        taken = _mask(status, b"SigCgt:") | _mask(status, b"SigIgn:") | _mask(status, b"SigBlk:")
    except (OSError, ValueError):
        return 0
    numbers = range(signal.SIGRTMAX - 1, signal.SIGRTMIN, -1)
    return next((number for number in numbers if not taken >> number - 1 & 1), 0)


def _mask(status: bytes, name: bytes) -> int:
    """The set of signals in a line of ``/proc/PID/status``: bit N - 1 is signal N."""
    start = status.index(b"\n" + name) + len(name) + 1
    return int(status[start : status.index(b"\n", start)], 16)
