"""Callbacks of users: in a thread of their own, so that nothing they do delays a kill."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable

from unhang._core import real_time as time
from unhang.report.model import Report

logger = logging.getLogger("unhang.watchdog")

# Reports that wait for a callback; what comes on top is dropped, and counted.
_MOST_WAITING = 64

OnExpired = Callable[[Report], None]


class Hooks:
    """Calls each callback with each report, one after the other; what they raise is logged. Thread-safe.

    Args:
        callbacks: whom to call.
    """

    def __init__(self, callbacks: Iterable[OnExpired]) -> None:
        self._callbacks = tuple(callbacks)
        self._waiting: queue.Queue[Report | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.dropped = 0

    def __reduce__(self) -> tuple[type[Hooks], tuple[Iterable[OnExpired]]]:
        return Hooks, (self._callbacks,)  # neither the thread nor what waits for it travels

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def call(self, report: Report) -> None:
        """Have the callbacks called, soon."""
        if not self._callbacks:
            return
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="unhang-hooks", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    logger.exception("No thread can be started for on_expired: it is not called")
                    return
                self._thread = thread
        try:
            self._waiting.put_nowait(report)
        except queue.Full:
            self.dropped += 1
            if self.dropped == 1:
                logger.warning("on_expired is too slow: reports are dropped while %s wait", _MOST_WAITING)

    def _run(self) -> None:
        while (report := self._waiting.get()) is not None:
            for callback in self._callbacks:
                try:
                    callback(report)
                except BaseException:  # SystemExit too: it would end the thread
                    logger.exception("Error in on_expired")

    def close(self, patience: float) -> None:
        """Let the callbacks finish what waits, for so many seconds at most."""
        until = time.monotonic() + patience
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            self._waiting.put(None, timeout=patience)
        except queue.Full:
            return
        if thread is not threading.current_thread():
            thread.join(max(0.0, until - time.monotonic()))
