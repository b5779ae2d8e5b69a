"""Looks at a watchdog from a thread of their own, so that keys are answered while a watchdog takes its time."""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import threading
import time
from dataclasses import dataclass, replace

from unhang.errors import UnhangError
from unhang.observe.find import find_watchdog
from unhang.observe.picture import Picture
from unhang.observe.viewing import RefusedError, View

# Seconds between two attempts to find a watchdog again.
_RETRY = 1.0
# Behind a wish for stacks, so many looks come sooner, with so many seconds in between.
_SOON, _SOONER = 4, 0.5


@dataclass(frozen=True, slots=True)
class Look:
    """What came of a look.

    Attributes:
        picture: what was seen; None if it failed.
        busy: the share of a processor that the watchdog's loop has worked since the look before; None at the first.
        trouble: why it failed.
        refusal: that of the watchdog, if it has failed for that.
    """

    picture: Picture | None = None
    busy: float | None = None
    trouble: str = ""
    refusal: RefusedError | None = None


class Looks:
    """Looks at a watchdog again and again, and finds one again when it is gone.

    Args:
        address: what was said on the command line; None: see `unhang.observe.find.find_watchdog`.
        interval: seconds from one look to the next.
        wake: a descriptor that gets a byte for each look.

    Raises:
        ViewError: there is no watchdog.
    """

    def __init__(self, address: str | None, interval: float, wake: int) -> None:
        self._address = address
        self._interval = interval
        self._wake = wake
        self._view: View | None = View(find_watchdog(address))
        self._seen: queue.SimpleQueue[Look] = queue.SimpleQueue()
        self._asked: collections.deque[tuple[float, int]] = collections.deque(maxlen=1)
        self._soon = 0
        self._hurry = threading.Event()
        self._closed = False
        self._before: Picture | None = None
        self._thread = threading.Thread(target=self._run, name="unhang-looks", daemon=True)
        self._thread.start()

    def new(self) -> list[Look]:
        """The looks that nobody has fetched yet."""
        looks: list[Look] = []
        with contextlib.suppress(queue.Empty):
            while True:
                looks.append(self._seen.get_nowait())
        return looks

    def ask_stacks(self, started: float, number: int) -> None:
        """Have the stacks of a worker taken: a later picture has them, or says why not. A look that fails ends it.

        Args:
            started: `unhang.report.live.Watchdog.started` of the watchdog that numbered it so.
            number: `unhang.report.live.WorkerInfo.number`.
        """
        self._asked.append((started, number))
        self._hurry.set()

    def close(self) -> None:
        """Look no more. Does not wait for a look that is under way."""
        self._closed = True
        self._hurry.set()

    def _run(self) -> None:
        while not self._closed:
            begun = time.monotonic()
            look = self._look()
            self._seen.put(look)
            with contextlib.suppress(OSError):
                os.write(self._wake, b"\0")
            self._hurry.wait(max(0.0, begun + self._pause(look) - time.monotonic()))
            self._hurry.clear()
        if self._view is not None:
            self._view.close()

    def _pause(self, look: Look) -> float:
        if look.picture is None:
            return _RETRY
        self._soon = 0 if look.picture.stacks or look.picture.no_stacks else max(0, self._soon - 1)
        return min(_SOONER, self._interval) if self._soon else self._interval

    def _look(self) -> Look:
        try:
            if self._view is None:
                self._view = View(find_watchdog(self._address))
            refused = self._pass_on(self._view)
            picture = self._view.look()
        except (UnhangError, OSError) as error:
            self._lose()
            return Look(trouble=str(error), refusal=error if isinstance(error, RefusedError) else None)
        busy = _busy(self._before, picture)
        self._before = picture
        return Look(replace(picture, no_stacks=refused) if refused else picture, busy)

    def _pass_on(self, view: View) -> str:
        """Ask the watchdog for the stacks that are wanted; returns why not, if another one was meant."""
        # Which watchdog a view is of is known from its first look on: until then, wishes wait.
        if not self._asked or self._before is None:
            return ""
        started, number = self._asked.popleft()
        if started != self._before.watchdog.started:
            return "the watchdog has been started again since"
        self._soon = _SOON
        view.ask_stacks(number)
        return ""

    def _lose(self) -> None:
        view, self._view, self._before = self._view, None, None
        self._asked.clear()
        if view is not None:
            view.close()


def _busy(before: Picture | None, now: Picture) -> float | None:
    if before is None or now.at <= before.at:
        return None
    return max(0.0, now.watchdog.busy - before.watchdog.busy) / (now.at - before.at)
