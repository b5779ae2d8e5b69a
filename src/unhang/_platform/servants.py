"""Processes that this one has started for itself: no part of the command that it runs, and not to be ended with it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable

# Held while one is started, so that nobody sees one that is not known yet.
_lock = threading.Lock()
_pids: set[int] = set()


def start(spawn: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Start one. Whoever calls this waits for it, and says when it has `ended`. Thread-safe.

    Raises:
        OSError: as ``spawn`` does.
    """
    with _lock:
        process = spawn()
        _pids.add(process.pid)
    return process


def ended(pid: int) -> None:
    """It was waited for: its pid may be another's from now on. Thread-safe."""
    with _lock:
        _pids.discard(pid)


def is_one(pid: int) -> bool:
    """Whether it is one of them. Thread-safe; waits while one is being started."""
    with _lock:
        return pid in _pids
