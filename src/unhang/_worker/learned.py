"""Budgets that follow from how long blocks took before."""

from __future__ import annotations

import os

from unhang._worker.client import LEARN
from unhang._worker.flags import says_no
from unhang._worker.seconds import nanoseconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta

    from unhang._core.budgets import Budgets
    from unhang._core.histogram import Durations

# Those that were made, so that `learned(...)` in the line of a block is the same each time it is run.
_MOST_MADE = 256
_made: dict[object, Learned] = {}
# What was read, by path: once in each process.
_known: dict[str, dict[str, Durations]] = {}
_SECOND = 1e9


class Learned:
    """What `learned` returns: a timeout for `expires` and `heartbeat` that depends on the scope. Immutable."""

    __slots__ = ("_margin", "_maximum", "_minimum", "_startup")

    def __init__(self, minimum: int, maximum: int, margin: float, startup: int) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._margin = margin
        self._startup = startup

    def budgets(self, scope: str) -> Budgets:
        """The timeouts of a scope in nanoseconds: of its first block in a process, and of the others."""
        from unhang._core.budgets import budgets

        known = _read().get(scope)
        return budgets(known, self._minimum, self._maximum, self._startup, self._margin)

    def total_seconds(self) -> float:
        """The longest that it may be, where the scope is not known yet: as a ``timedelta`` says how long it is."""
        return max(self._maximum, self._startup) / _SECOND

    def __repr__(self) -> str:
        times = f"minimum={self._minimum / _SECOND:g}, maximum={self._maximum / _SECOND:g}"
        return f"learned({times}, margin={self._margin:g}, startup={self._startup / _SECOND:g})"


def learned(
    *,
    minimum: float | timedelta = 1.0,
    maximum: float | timedelta,
    margin: float = 2.0,
    startup: float | timedelta | None = None,
) -> Learned:
    """A timeout for `expires` and `heartbeat` that follows from how long the blocks of the scope took before.

    ::

        STEP = unhang.learned(minimum=1, maximum=600, startup=1800)

        for batch in loader:
            with unhang.expires(after=STEP, scope="step"):
                train(batch)

    What is known stands in the file that the environment variable ``UNHANG_LEARN`` names, which ``unhang run --learn
    FILE`` sets; it is read once in a process. Without it, or with too little in it, the timeout is the maximum. The
    rule is in the documentation (learned budgets), with what it does not promise.

    Args:
        minimum: it is never shorter; seconds, or a ``timedelta``.
        maximum: it is never longer.
        margin: how many times longer than what is to be expected a block may take; 1 or more.
        startup: the maximum for the first block of a scope in a process, and for those that are entered before it is
            left. They are learned apart. Default: ``maximum``.

    Thread-safe. The first blocks are told by the scope and the place of the call; a forked child starts up anew.

    Raises:
        TypeError, ValueError: one of them is not such a number, or the minimum is above the maximum.
    """
    key = (minimum, maximum, margin, startup)
    try:
        known = _made.get(key)
    except TypeError:  # not hashable: the next lines say what is wrong
        known = None
    return known or _make(key)


def _make(key: tuple[float | timedelta, float | timedelta, float, float | timedelta | None]) -> Learned:
    minimum, maximum, margin, startup = key
    least, most = nanoseconds(minimum, "minimum"), nanoseconds(maximum, "maximum")
    first = most if startup is None else nanoseconds(startup, "startup")
    if isinstance(margin, bool) or not isinstance(margin, (int, float)):
        raise TypeError(f"margin is a number, not {type(margin).__name__}")
    if not 1 <= margin < float("inf"):
        raise ValueError(f"margin is a number from 1 on, not {margin!r}")
    if least > most or least > first:
        raise ValueError(f"minimum={minimum!r} is above {'maximum' if least > most else 'startup'}")
    if len(_made) >= _MOST_MADE:
        _made.clear()
    return _made.setdefault(key, Learned(least, most, margin, first))


def default_path() -> str:
    """The file that durations are kept in, if it is not said: ``unhang/learned.json`` in ``$XDG_STATE_HOME`` or so.

    Raises:
        RuntimeError: there is no home.
    """
    from pathlib import Path

    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    return str((state if state.is_absolute() else Path.home() / ".local" / "state") / "unhang" / "learned.json")


def _read() -> dict[str, Durations]:
    path = os.environ.get(LEARN, "")
    if says_no(path):
        return {}
    known = _known.get(path)
    if known is None:
        from unhang._worker.learned_file import read_durations

        known = _known[path] = read_durations(path)
    return known
