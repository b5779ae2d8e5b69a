"""Threads that do for the loop what may take its time: evidence, reports."""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

logger = logging.getLogger(__name__)


class Helpers:
    """A few daemon threads, started when they are needed. What they have done is handed back to the loop.

    Args:
        most: how many there are at most; what is given to them meanwhile waits.
        wake: wakes the loop, which then calls `deliver`.

    `submit` and `deliver` belong to the loop's thread. A task that never ends keeps its thread, and nobody waits for
    it: not at the end of the program either.
    """

    def __init__(self, most: int, wake: Callable[[], None]) -> None:
        self._most = most
        self._wake = wake
        self._tasks: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Callable[[Any], None], Any]] = queue.SimpleQueue()
        self._threads = 0
        self._under_way = 0
        self._is_holding = False
        self._held: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def submit(self, task: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Have ``task()`` done; ``done(result)`` is called by `deliver`, with None if it raised or was not done."""
        self._under_way += 1
        if self._is_holding:
            self._held.append((task, done))
        else:
            self._put(task, done)

    @property
    def backlog(self) -> int:
        """How many tasks have been given to them whose results were not delivered yet."""
        return self._under_way

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Begin what is given to them at the end of this: they take the interpreter from the loop, switch by switch."""
        self._is_holding = True
        try:
            yield
        finally:
            self._is_holding = False
            held, self._held = self._held, []
            for task, done in held:
                self._put(task, done)

    def _put(self, task: Callable[[], Any], done: Callable[[Any], None]) -> None:
        if self._threads < min(self._under_way, self._most) and self._start():
            self._threads += 1
        if self._threads:
            self._tasks.put((task, done))
        else:
            self._done.put((functools.partial(self._ended, done), None))
            self._wake()

    def _start(self) -> bool:
        """Start a thread; False where there is none to be had: then those that there are do more."""
        try:
            threading.Thread(target=self._run, name="unhang-helper", daemon=True).start()
        except RuntimeError:
            logger.warning("no thread can be started for evidence and reports: see the limit of processes (ulimit -u)")
            return False
        return True

    def _run(self) -> None:
        while (entry := self._tasks.get()) is not None:
            task, done = entry
            try:
                result = task()
            except Exception:
                logger.exception("Error in %r", task)
                result = None
            self._done.put((functools.partial(self._ended, done), result))
            # While it waits, it must not keep alive what these hold: descriptors.
            del entry, task, done, result
            self._wake()

    def _ended(self, done: Callable[[Any], None], result: Any) -> None:
        self._under_way -= 1
        done(result)

    def post(self, done: Callable[[], None]) -> None:
        """Have something called by `deliver`; from any thread."""
        self._done.put((lambda _: done(), None))
        self._wake()

    def deliver(self) -> None:
        """Call back for what has been done since."""
        while True:
            try:
                done, result = self._done.get_nowait()
            except queue.Empty:
                return
            done(result)

    def close(self) -> None:
        """Let the threads end, each behind what it is doing."""
        for _ in range(self._threads):
            self._tasks.put(None)
        self._threads = 0
