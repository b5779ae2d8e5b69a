"""A timer that is restarted on progress."""

from __future__ import annotations

import sys

from unhang._worker.heart import HOW_TO_BEAT
from unhang._worker.implementation import Heartbeat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta

    from unhang._worker.client import SharedTimerClient
    from unhang._worker.learned import Learned
    from unhang.api import TimerClient


def heartbeat(
    after: float | timedelta | Learned,
    scope: str | None = None,
    client: TimerClient | SharedTimerClient | None = None,
    *,
    signal: int | str | None = None,
    grace: float | timedelta | None = None,
    pretimeout: float | timedelta | None = None,
) -> Heartbeat:
    """A timer for a loop: armed by the first ``beat()``, restarted by each, disarmed by ``close()``.

    ::

        with heartbeat(after=60, scope="steps") as steps:
            for batch in loader:
                train(batch)
                steps.beat()

    If no beat comes for ``after`` seconds, the watchdog kills this process. Before the first beat nothing is armed,
    so start-up may take its time.

    Args:
        after: the timeout, as for `expires`.
        scope: names the timer. Default: the place of this call, as ``file:line``.
        client: as for `expires`.
        signal: as for `expires`.
        grace: as for `expires`.
        pretimeout: as for `expires`.
    """
    if callable(after):
        raise TypeError(f"unhang.heartbeat has no timeout here, and decorates no function: {HOW_TO_BEAT}")
    if scope is None:
        frame = sys._getframe(1)
        scope = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return Heartbeat(after, scope, client, signal=signal, grace=grace, pretimeout=pretimeout)
