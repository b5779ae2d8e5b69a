"""Checks what users pass as a time."""

from __future__ import annotations

from unhang._core.page import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta

    from unhang._worker.learned import Learned

_SECOND = 1_000_000_000


def nanoseconds(time: float | timedelta | Learned, name: str) -> int:
    """A time above 0, in seconds or as a ``timedelta``, as nanoseconds; anything else is told with its name.

    Raises:
        TypeError: it is not a time.
        ValueError: it is one that cannot be waited for.
    """
    if hasattr(time, "total_seconds"):
        seconds = time.total_seconds()
    elif isinstance(time, (int, float)) or (hasattr(time, "__float__") and not hasattr(time, "__len__")):
        seconds = float(time)
    else:
        raise TypeError(f"{name} is a number of seconds or a timedelta, not {type(time).__name__}")
    if not 0 < seconds * _SECOND < NEVER // 2:
        raise ValueError(f"{name} is a time above 0 and below 70 years, not {time!r}")
    return max(1, int(seconds * _SECOND))
