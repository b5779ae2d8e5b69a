"""A second reader of a worker's page: it looks at every timer all the time, and believes nothing twice."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import NamedTuple

from chaos_stage import Stage, idle
from unhang._core.page_reader import PageReader, Snapshot
from unhang._platform import memfd
from unhang._worker.implementation import fence

# Nanoseconds by which an instant of arming may seem to lie before the look at the arming before it: the clock can be
# read before the store that disarms has left its processor.
_STORED = 20_000
# Passes over the page between two looks at the pipe.
_PASSES = 200


class Owner(NamedTuple):
    """Who arms a timer: a thread, by the kernel's number; and whether it restarts it, or enters it anew each time."""

    thread: int
    restarts: bool


# By scope and timeout, in nanoseconds.
Owners = Mapping[tuple[str, int], Owner]


class PageOf(NamedTuple):
    """A page of another process: its pid, the descriptor there, and whose timers are in it."""

    pid: int
    fd: int
    owners: Owners


class Seen(NamedTuple):
    """What a reader has seen so far.

    Attributes:
        whole: snapshots that were checked.
        changed: looks that met a timer which was armed or disarmed meanwhile, or was not armed.
        trouble: what was wrong with the first torn one; empty if none was.
        armings: the sum of the sequences of all slots.
        used: slots that were ever used.
        live: the scopes that are armed now.
    """

    whole: int
    changed: int
    trouble: str
    armings: int
    used: int
    live: tuple[str, ...]


class Reader:
    """Looks at every slot of a page again and again, and checks that what it sees is of one arming.

    Args:
        page: the page.
        owners: see `Owners`.
    """

    def __init__(self, page: PageReader, owners: Owners) -> None:
        self._page = page
        self._owners = owners
        self._last: dict[int, tuple[int, int, int]] = {}  # by slot: sequence, instant of arming, when it was looked at
        self._whole = self._changed = 0
        self._trouble = ""

    def look(self) -> None:
        """Look at all slots once."""
        for index in range(self._page.used):
            before = time.monotonic_ns()
            seen = self._page.snapshot(index)
            if seen is None:
                self._changed += 1
                continue
            wrong = self._what_is_wrong(seen, time.monotonic_ns())
            self._whole += 1
            self._last[index] = (seen.sequence, seen.armed_at, before)
            if wrong and not self._trouble:
                self._trouble = f"{wrong}: {seen}"

    def _what_is_wrong(self, seen: Snapshot, after: int) -> str:
        """Why this is not what a slot held at one moment before ``after``; empty if it is."""
        owner = self._owners.get((seen.scope, seen.timeout))
        if owner is None:
            return "a scope with another one's timeout"
        if owner.thread != seen.thread:
            return "a scope with another one's thread"
        if not 0 < seen.count <= seen.sequence:
            return "a sequence with another one's beginning"
        sequence, armed_at, looked = self._last.get(seen.index, (0, 0, 0))
        if seen.sequence == sequence:
            return "" if seen.armed_at == armed_at else "a sequence with another one's deadline"
        if seen.sequence < sequence:
            return f"a sequence that was {sequence} before"
        # A restart reads the clock while the timer is still armed as it was; else it was not armed any more.
        earliest = armed_at + 1 if owner.restarts else max(armed_at + 1, looked - _STORED)
        return "" if earliest <= seen.armed_at <= after else f"not armed between {earliest} and {after}"

    def seen(self) -> Seen:
        """What it has seen so far."""
        live = tuple(sorted(timer.scope for timer in self._page.live()))
        return Seen(self._whole, self._changed, self._trouble, self._page.sequence, self._page.used, live)


def read_on(stage: Stage, page: PageOf, pipe: Connection) -> None:
    """A process that reads a page, and says what it has seen whenever it is asked, until it is told to rest."""
    fd = os.open(f"/proc/{page.pid}/fd/{page.fd}", os.O_RDWR)
    reader = Reader(PageReader(memoryview(memfd.map_sealed(fd)), fence), page.owners)
    pipe.send("reads")
    while True:
        for _ in range(_PASSES):
            reader.look()
        if pipe.poll():
            if pipe.recv() == "rest":
                break
            pipe.send(reader.seen())
    idle(stage, pipe)
