"""When to try again to kill what could not be killed."""

from __future__ import annotations

FIRST_PAUSE = 0.1
LAST_PAUSE = 30.0
ATTEMPTS = 12


def pause_after(attempts: int) -> float | None:
    """Seconds to wait after so many failed attempts: doubling from 0.1 s to 30 s; None to give up.

    Twelve attempts take a little more than a minute and a half.
    """
    if attempts >= ATTEMPTS:
        return None
    return float(min(FIRST_PAUSE * 2 ** (attempts - 1), LAST_PAUSE))
