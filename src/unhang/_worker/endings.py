"""How a worker is to be ended, as a timer says it."""

from __future__ import annotations

import signal as signals

from unhang._core.page import HARMLESS_SIGNALS, ending
from unhang._worker.seconds import nanoseconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta

_SECOND = 1e9
_LAST_STANDARD = 31


def signal_number(signal: int | str, name: str = "signal") -> int:
    """The number of a signal that ends a process: ``"SIGTERM"``, ``"term"``, ``15``; 0 for ``"none"``.

    Raises:
        TypeError: it is neither a number nor a name.
        ValueError: there is no such signal, or it cannot end a process.
    """
    if isinstance(signal, bool) or not isinstance(signal, (int, str)):
        raise TypeError(f"{name} is the number or the name of a signal, not {type(signal).__name__}")
    text = str(signal).upper().removeprefix("SIG")
    if text in ("NONE", "KILL", "0", str(int(signals.SIGKILL))):
        return 0
    number = int(text) if text.isdecimal() else int(getattr(signals, f"SIG{text}", 0))
    if number not in signals.valid_signals() or number > _LAST_STANDARD:
        raise ValueError(f"{name} is a signal such as SIGTERM, or none, not {signal!r}")
    if number in HARMLESS_SIGNALS:
        raise ValueError(f"{name} is a signal that ends a process, not {signals.Signals(number).name}")
    return number


def parse(
    signal: int | str | None, grace: float | timedelta | None, pretimeout: float | timedelta | None
) -> tuple[int, int]:
    """The word for a slot (see `unhang._core.page.ending`), and the pretimeout in nanoseconds.

    Raises:
        TypeError, ValueError: one of them is not what it should be.
    """
    number = None if signal is None else signal_number(signal)
    if grace is None or (isinstance(grace, (int, float)) and grace == 0):
        seconds = None if grace is None else 0.0
    else:
        seconds = nanoseconds(grace, "grace") / _SECOND
    early = 0 if pretimeout is None else nanoseconds(pretimeout, "pretimeout")
    return ending(number, seconds), early
