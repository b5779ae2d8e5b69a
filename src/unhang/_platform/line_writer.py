"""Lines for a descriptor that others write to as well."""

from __future__ import annotations

import errno
import os
import select
import threading

# Milliseconds between two looks whether it is still worth waiting for whoever reads.
_PATIENCE = 100


class LineWriter:
    """Writes whole lines to a descriptor, and waits for whoever reads them. For one thread, but for `give_up`.

    The descriptor's flags, which belong to others too, are left alone. Where only a part of a line finds room, as on a
    full disk, the rest of it is written in front of the next one.

    Args:
        fd: the descriptor, which stays open.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._rest = b""
        self._given_up = threading.Event()

    def write(self, lines: bytes) -> None:
        """Write some lines, of ``PIPE_BUF`` bytes together at most.

        Raises:
            OSError: nothing of them was written, nor will be.
        """
        self._write_rest()
        self._rest = lines
        try:
            self._write_rest()
        except OSError:
            # What was begun is brought to its end as soon as that can be.
            if len(self._rest) == len(lines):
                self._rest = b""
                raise

    def _write_rest(self) -> None:
        while self._rest:
            if self._given_up.is_set():
                raise OSError(errno.ETIMEDOUT, "nobody reads it")
            if not self._poll.poll(_PATIENCE):
                continue
            try:
                # A pipe that is ready takes PIPE_BUF bytes as a whole; a terminal or a full disk may take less.
                self._rest = self._rest[os.write(self._fd, self._rest) :]
            except BlockingIOError:
                # Somebody else was faster, or is in the middle of a write to this terminal, which may count as ready.
                self._given_up.wait(_PATIENCE / 1000)

    def give_up(self) -> None:
        """Let a `write` that waits raise, unless it is in a write to a terminal or a disk; for another thread."""
        self._given_up.set()
