"""The thread that a server's loop runs in."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from unhang._platform.priority import raise_own_priority

logger = logging.getLogger(__name__)

# Seconds between two turns of a loop of which the first raised: an error that stays must not take a processor.
_ERROR_PAUSE = 0.1
# Seconds that stop() waits, even where one turn of the loop takes less.
_JOIN = 1.0


class LoopThread:
    """Starts and stops the thread that runs ``_watchdog_loop`` until ``_stop_signaled``.

    Args:
        max_interval: seconds that one turn of the loop may take.
        daemon: whether the thread lets the process end without it.
    """

    def __init__(self, max_interval: float, daemon: bool) -> None:
        self._max_interval = max_interval
        self._daemon = daemon
        self._watchdog_thread: threading.Thread | None = None
        self._leaving_thread: threading.Thread | None = None
        self._stop_signaled = False
        self._errors = 0

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process, before `start`: all but the threads.

        Raises:
            TypeError: it runs.
        """
        if self._is_running():
            raise TypeError(f"cannot pickle a {type(self).__name__} that runs: give it to its process before start()")
        return {**vars(self), "_watchdog_thread": None, "_leaving_thread": None}

    def _loop_in_front(self) -> None:
        raise_own_priority()
        self._watchdog_loop()

    def _watchdog_loop(self) -> None:
        while not self._stop_signaled:
            try:
                self._run_watchdog()
            except Exception as error:  # noqa: BLE001 - it is logged, and the watch goes on
                self._turn_raised(error)

    def _run_watchdog(self) -> None:
        """One turn of the loop."""
        raise NotImplementedError

    def _is_running(self) -> bool:
        return self._watchdog_thread is not None and self._watchdog_thread.is_alive()

    def _start_thread(self, **details: Any) -> None:
        name = type(self).__name__
        if self._is_running():
            logger.info("%s is running already", name)
            return
        details = {"max_interval": self._max_interval, "daemon": self._daemon, **details}
        logger.info("Starting %s... %s", name, ", ".join(f"{key}={value}" for key, value in details.items()))
        self._stop_signaled = False
        leaving, self._leaving_thread = self._leaving_thread, None
        if leaving is not None and leaving.is_alive():
            # It has not noticed the stop, and now will not: it goes on as the watchdog.
            self._watchdog_thread = leaving
            return
        self._watchdog_thread = threading.Thread(
            target=self._loop_in_front, name="unhang-watchdog", daemon=self._daemon
        )
        self._watchdog_thread.start()

    def _turn_raised(self, error: Exception) -> None:
        """Log the exception of a turn, unless there were many already: the 1st, 2nd, 4th, 8th, …; and pause."""
        self._errors += 1
        if self._errors & (self._errors - 1) == 0:
            logger.error("Error running watchdog (number %s)", self._errors, exc_info=error)
        time.sleep(_ERROR_PAUSE)

    def _join_thread(self, timeout: float | None = None) -> None:
        logger.info("Stopping %s", type(self).__name__)
        thread, self._watchdog_thread = self._watchdog_thread, None
        if thread is None:
            logger.info("No watchdog thread running, doing nothing")
        elif thread is not threading.current_thread():
            thread.join(max(self._max_interval, _JOIN) if timeout is None else timeout)
            self._leaving_thread = thread
