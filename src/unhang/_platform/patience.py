"""Calls that may never come back: a file on a dead network, the memory map of a process that is stuck in the kernel."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Each call that never comes back costs a thread for good; beyond these, nothing doubtful is tried any more.
_MOST_STUCK = 16
_may_try = threading.BoundedSemaphore(_MOST_STUCK)


def within(seconds: float, function: Callable[[], T], otherwise: T) -> T:
    """What a function returns, or ``otherwise`` if it raises an `Exception` or has not returned after ``seconds``.

    The function runs in a thread of its own, which is left alone if it is late: it must have no side effect that
    matters then. Thread-safe.
    """
    if seconds <= 0 or not _may_try.acquire(blocking=False):
        return otherwise
    results: queue.SimpleQueue[T] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put(function())
        except Exception:  # noqa: BLE001 - whatever it is, it is the caller's "otherwise"
            results.put(otherwise)
        finally:
            _may_try.release()

    try:
        threading.Thread(target=run, name="unhang-patience", daemon=True).start()
    except RuntimeError:  # no more threads to be had
        _may_try.release()
        return otherwise
    try:
        return results.get(timeout=seconds)
    except queue.Empty:
        return otherwise
