"""Keeps what a watchdog's workers learn, in a file that outlives all of them."""

from __future__ import annotations

import collections
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from unhang._core.histogram import Durations
from unhang.errors import UnhangError
from unhang.observe.learning import LearnedFile
from unhang.report.live import Event

logger = logging.getLogger("unhang.observe")

# Seconds between two times at which it is written.
_PAUSE = 30.0
# Seconds to wait for that at the end.
_PATIENCE = 3.0


class Learner:
    """Brings what is seen into the file, each block once. Not thread-safe.

    Args:
        file: where it is kept. That it cannot be written is logged, once for as long as that lasts.
        clock: monotonic seconds.
        again: whether another process did this for the same watchdog before: what it has seen is saved.
    """

    def __init__(self, file: LearnedFile, clock: Callable[[], float] = time.monotonic, *, again: bool = False) -> None:
        self._file = file
        self._clock = clock
        self._known: Mapping[str, Durations] | None = None if again else {}
        self._heard = clock() if again else -math.inf
        self._killed: collections.Counter[str] = collections.Counter()
        self._save_at = clock() + _PAUSE
        self._failed = False
        self._saving: threading.Thread | None = None

    def begin_anew(self) -> None:
        """The next durations are of a new view, which has those of before as well: only what comes then is new."""
        self._known = None

    def happened(self, events: Iterable[Event]) -> None:
        """Note the blocks whose workers were killed; a new view tells the same events again."""
        new = [event for event in events if event.at > self._heard]
        self._heard = max([self._heard, *(event.at for event in new)])
        self._killed.update(event.scope for event in new if event.event == "killed" and event.scope)

    def saw(self, durations: Mapping[str, Durations]) -> None:
        """How long blocks took, from the beginning of the view on; writes it down from time to time."""
        if self._saving is not None and self._saving.is_alive():
            return  # a file system hangs: what comes meanwhile is added later
        known, self._known = self._known, durations
        more = {} if known is None else dict(_since(known, durations))
        for scope, count in self._killed.items():
            more[scope] = more.get(scope, Durations()).merge(Durations(killed=count))
        self._killed.clear()
        self._file.add(more)
        if self._clock() >= self._save_at:
            self._save_at = self._clock() + _PAUSE
            # In a thread: whoever looks must not wait for a disk.
            self._saving = threading.Thread(target=self._save, name="unhang-learner", daemon=True)
            self._saving.start()

    def save(self) -> None:
        """Write it down now, if that is not under way already; returns when it is done, or after some seconds."""
        if self._saving is None or not self._saving.is_alive():
            self._saving = threading.Thread(target=self._save, name="unhang-learner", daemon=True)
            self._saving.start()
        self._saving.join(_PATIENCE)

    def _save(self) -> None:
        try:
            self._file.save()
        except UnhangError as error:
            if not self._failed:
                logger.warning("%s; it is tried again every %g s", error, _PAUSE)
            self._failed = True
        else:
            self._failed = False


def _since(known: Mapping[str, Durations], durations: Mapping[str, Durations]) -> Iterable[tuple[str, Durations]]:
    for scope, now in durations.items():
        before = known.get(scope)
        more = now if before is None else now.minus(before)
        if more.count:
            yield scope, more
