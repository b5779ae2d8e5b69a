"""Where a watchdog that is a process of its own says what it does."""

from __future__ import annotations

import logging
import os
import queue
import select
import signal
import sys
import threading
from collections.abc import Iterator

from unhang._core.texts import escaped
from unhang._platform.line_writer import LineWriter

# Bytes that wait to be written; a line that comes on top is lost, and counted.
_MOST_WAITING = 4 << 20
# Columns of a terminal: fewer are treated as so many.
_NARROWEST = 40
# Of one that does not know.
_USUAL = 80
# Seconds for what still waits when the process ends.
_PATIENCE = 1.0
# What a line of the log may have of its own, whatever it quotes: a report has several lines.
_LAYOUT = "\n\t"


class Patient(logging.Handler):
    """Writes lines to a descriptor in a thread of its own: whoever logs never waits, whatever the descriptor is.

    A terminal that was stopped, a pipe that nobody reads or a disk that hangs must not keep a watchdog from its work.
    Lines that cannot be written, or for which too many wait already, are counted, and told when others can be written.

    Args:
        fd: the descriptor, which stays open.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._writer = LineWriter(fd)
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._put = self._taken = 0  # bytes; each is added to by one side
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="unhang-log", daemon=True)
        _start_without_signals(self._thread)

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        if self._put - self._taken > _MOST_WAITING:
            self._lost += 1
            return
        text = self._text_of(record).encode("utf-8", "backslashreplace")
        if self._lost:
            text = b"unhang: lines that were lost: %d; too many waited to be written\n%s" % (self._lost, text)
            self._lost = 0
        self._put += len(text)
        self._waiting.put(text)

    def _text_of(self, record: logging.LogRecord) -> str:
        try:
            return f"unhang: {escaped(self.format(record), _LAYOUT)}\n"
        except Exception as error:  # noqa: BLE001 - logging's own way is to write to standard error, and to wait
            return f"unhang: {type(error).__name__} in a line of the log: {escaped(str(record.msg))}\n"

    def _run(self) -> None:
        failed = 0
        while (text := self._waiting.get()) is not None:
            told = b"unhang: lines that were lost: %d; they could not be written\n" % failed if failed else b""
            try:
                for piece in _pieces(told + text):
                    self._writer.write(piece)
                failed = 0
            except OSError:
                failed += 1
            self._taken += len(text)

    def close(self) -> None:
        """Write what waits, for a second at most; nothing that comes afterwards is written. May be called twice."""
        self._waiting.put(None)
        self._thread.join(_PATIENCE)
        super().close()


def _start_without_signals(thread: threading.Thread) -> None:
    """Start a thread that takes no signal from those who wait for it, and that a terminal does not stop (SIGTTOU)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pieces(text: bytes) -> Iterator[bytes]:
    """The text in pieces of whole lines that a pipe takes at once; longer lines are cut."""
    piece = b""
    for line in text.splitlines(keepends=True):
        if len(piece) + len(line) > select.PIPE_BUF:
            yield piece
            piece = b""
        piece += line if len(line) <= select.PIPE_BUF else line[: select.PIPE_BUF - 1] + b"\n"
    yield piece


def terminal_width(fd: int) -> int | None:
    """The columns of the terminal that a descriptor leads to, at least 40; None if it leads elsewhere. Never raises."""
    try:
        return max(_NARROWEST, os.get_terminal_size(fd).columns or _USUAL)
    except (OSError, ValueError):
        return None


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Let the loggers of unhang write to standard error, one line each, marked as unhang's; and Python's own warnings.

    What Python would write there by itself, in whatever thread, would wait for whoever reads it.
    """
    try:
        handler: logging.Handler = Patient(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        handler = logging.NullHandler()  # it is closed
    logging.captureWarnings(capture=True)
    for name in ("unhang", "py.warnings"):
        log = logging.getLogger(name)
        log.setLevel(level)
        log.propagate = False
        log.addHandler(handler)
    sys.unraisablehook = _log_unraisable


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """What a finalizer raises, which may run in any thread."""
    error = unraisable.exc_value
    logging.getLogger("unhang").error(
        "%s: %r", unraisable.err_msg or "Exception ignored in", unraisable.object, exc_info=error
    )
