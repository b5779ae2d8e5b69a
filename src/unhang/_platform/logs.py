"""Where a watchdog that is a process of its own says what it does."""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Iterator


class Patient(logging.Handler):
    """Writes lines to a descriptor without ever waiting for whoever reads it; lines that do not fit are counted.

    A terminal that was stopped, or a full pipe, must not keep a watchdog from its work.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        try:
            line = f"unhang: {self.format(record)}\n"
            if self._lost:
                line = f"unhang: {self._lost} lines were lost: nobody read them\n{line}"
            if self._write(line.encode("utf-8", "backslashreplace")):
                self._lost = 0
            else:
                self._lost += 1
        except Exception:  # noqa: BLE001 - as logging wants it
            self.handleError(record)

    def _write(self, text: bytes) -> bool:
        """Write some lines; False if not all of them could be written."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        # A pipe that is ready takes PIPE_BUF bytes without waiting.
        return all(poll.poll(0) and os.write(self._fd, piece) > 0 for piece in _pieces(text))


def _pieces(text: bytes) -> Iterator[bytes]:
    """The text in pieces of whole lines that a pipe takes at once; longer lines are cut."""
    piece = b""
    for line in text.splitlines(keepends=True):
        if len(piece) + len(line) > select.PIPE_BUF:
            yield piece
            piece = b""
        piece += line if len(line) <= select.PIPE_BUF else line[: select.PIPE_BUF - 1] + b"\n"
    yield piece


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Let the loggers of unhang write to standard error, one line each, marked as unhang's."""
    log = logging.getLogger("unhang")
    log.setLevel(level)
    log.propagate = False
    try:
        handler: logging.Handler = Patient(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        handler = logging.NullHandler()  # it is closed
    log.addHandler(handler)
