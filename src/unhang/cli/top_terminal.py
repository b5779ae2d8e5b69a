"""A terminal that is drawn on as a whole, and whose keys come as they are pressed.

It is as it was before whenever this ends or is stopped: by a key, an error, a signal. Ctrl-C and Ctrl-Z are the
signals that they always are. For the main thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from rich.console import Console
from rich.text import Text

from unhang.cli.top_keys import Keys

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NOTED = (signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
# Another screen, no cursor, no line breaks of its own; and back.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J", "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE = "\x1b[H", "\x1b[2K"
# Seconds after which an escape is that key, and not the beginning of another one.
_ESCAPE_TIME = 0.05
# Seconds that a terminal which takes nothing any more is waited for at the end.
_LAST = 0.5
_LARGEST = (1000, 500)
_PLAIN = str.maketrans("█░…↑↓▏", "#-~^v|")


class Terminal:
    """The terminal of this process; see `opened`.

    Attributes:
        wake: a descriptor; a byte that is written there ends `keys`.
    """

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._console = Console(file=sys.stdout, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._keys = Keys()
        self._noted: set[int] = set()
        self._before: list[Any] = []
        self._handlers: dict[signal.Signals, Any] = {}
        self._wakes, self.wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        columns, lines = os.get_terminal_size(self._out)
        return min(columns or 80, _LARGEST[0]), min(lines or 24, _LARGEST[1])

    @contextlib.contextmanager
    def opened(self) -> Iterator[Terminal]:
        """Take the terminal for a while.

        SIGTERM and SIGHUP end the process behind that, with 128 and their number, SIGINT with 0: Ctrl-C is how most
        people leave.
        """
        for number in (*_ENDING, *_NOTED):
            self._handlers[number] = signal.signal(number, self._end if number in _ENDING else self._note)
        old = signal.set_wakeup_fd(self.wake, warn_on_full_buffer=False)
        try:
            self._enter()
            yield self
        finally:
            for each in _ENDING:
                signal.signal(each, signal.SIG_IGN)
            self._leave()
            signal.set_wakeup_fd(old)
            for each, handler in self._handlers.items():
                signal.signal(each, handler)

    def _end(self, number: int, _: FrameType | None) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(0 if number == signal.SIGINT else 128 + number)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._noted.add(number)

    def _enter(self) -> None:
        if not self._before:
            self._before = termios.tcgetattr(self._in)
        mode = list(self._before)
        mode[0] &= ~termios.IXON  # Ctrl-S is no way to make this stand still for ever
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6] = [*mode[6]]
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._in, termios.TCSANOW, mode)
        self._write(_ENTER)

    def _leave(self) -> None:
        # A terminal that is gone needs nothing.
        with contextlib.suppress(OSError, termios.error):
            if select.select([], [self._out], [], _LAST)[1]:
                self._write(_LEAVE)
            if self._before:
                termios.tcsetattr(self._in, termios.TCSANOW, self._before)

    def _write(self, text: str) -> None:
        encoding = sys.stdout.encoding or "ascii"
        if not encoding.lower().startswith("utf"):
            text = text.translate(_PLAIN)
        data = memoryview(text.encode(encoding, "replace"))
        while data:
            data = data[os.write(self._out, data) :]

    def draw(self, lines: Sequence[Text]) -> None:
        """Show these lines: as many as fit, and none too wide."""
        with self._console.capture() as captured:
            self._console.print(Text("\n").join(lines), end="", soft_wrap=True)
        # Each line is cleared before it is written: behind its last column that would take away the last character.
        shown = captured.get().split("\n")
        self._write(_HOME + "\r\n".join(f"{_CLEAR_LINE}{line}" for line in shown))

    def keys(self, patience: float) -> list[str]:
        """The next keys; empty when a signal came, `wake` was used, or nothing happened for so many seconds.

        Raises:
            EOFError: the terminal is gone.
        """
        patience = min(patience, _ESCAPE_TIME) if self._keys.waits else patience
        ready, _, _ = select.select([self._in, self._wakes], [], [], max(0.0, patience))
        if self._wakes in ready:
            os.read(self._wakes, 4096)
        self._act()
        if self._in not in ready:
            return self._keys.end() if self._keys.waits and not ready else []
        try:
            data = os.read(self._in, 1024)
        except OSError:
            data = b""
        if not data:
            raise EOFError
        return self._keys.feed(data)

    def _act(self) -> None:
        """Do what the signals ask for."""
        noted, self._noted = self._noted, set()
        if signal.SIGTSTP in noted:
            self._stop()
        elif signal.SIGCONT in noted:
            self._enter()

    def _stop(self) -> None:
        """Stop, as Ctrl-Z asks, with the terminal as it was; `fg` goes on here."""
        self._leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)  # to this thread: it stops here, and not a little later
        signal.signal(signal.SIGTSTP, self._note)
        # Somebody may have changed it meanwhile.
        self._before = termios.tcgetattr(self._in)
        self._enter()
