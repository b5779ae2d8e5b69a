"""The workers of the demo: what each does inside its block. Standard library only, as in any worker."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import unhang

# Far longer than any demo: a hung worker that nobody kills is ended by the demo.
_FOREVER = 600


def _finish_in_time(after: float) -> None:
    with unhang.expires(after):
        time.sleep(after / 2)


def _many_short_blocks(after: float) -> None:
    for _ in range(200):
        with unhang.expires(after):
            sum(range(1000))


def _nested_blocks(after: float) -> None:
    with unhang.expires(after, scope="outer"):
        for _ in range(3):
            with unhang.expires(after / 2, scope="inner"):
                time.sleep(after / 10)


def _sleep(after: float) -> None:
    with unhang.expires(after):
        time.sleep(_FOREVER)


def _python_loop(after: float) -> None:
    with unhang.expires(after):
        while True:
            pass


def _lock(after: float) -> None:
    lock = threading.Lock()
    with unhang.expires(after), lock:
        lock.acquire()


def _c_code_with_gil(after: float) -> None:
    keeps_the_gil = ctypes.PyDLL(None)
    with unhang.expires(after):
        keeps_the_gil.sleep(_FOREVER)


def _blocking_read(after: float) -> None:
    reader, _writer = os.pipe()
    with unhang.expires(after):
        os.read(reader, 1)


@dataclass(frozen=True)
class Behaviour:
    """What a worker does, and what should become of it."""

    name: str
    block: Callable[[float], None]
    hangs: bool


BEHAVIOURS = [
    Behaviour("finishes in time", _finish_in_time, hangs=False),
    Behaviour("200 short blocks", _many_short_blocks, hangs=False),
    Behaviour("nested blocks", _nested_blocks, hangs=False),
    Behaviour("asleep", _sleep, hangs=True),
    Behaviour("in a Python loop", _python_loop, hangs=True),
    Behaviour("in a lock", _lock, hangs=True),
    Behaviour("in C, keeping the GIL", _c_code_with_gil, hangs=True),
    Behaviour("in a blocking read", _blocking_read, hangs=True),
]


def work(index: int, client: unhang.TimerClient, after: float, report: Connection) -> None:
    """The process of a worker: tell the deadline (monotonic, seconds), and do what behaviour ``index`` does."""
    unhang.configure(client)
    report.send(time.monotonic() + after)
    BEHAVIOURS[index].block(after)
