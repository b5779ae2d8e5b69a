"""What shared timers cost a watchdog with many workers, and how late it is then: prints JSON.

Processor time is that of the whole process of the watchdog, over windows of a few seconds.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from bench_channel import SHARED, Channel, section_arguments
from bench_child import Child, exits
from bench_crowd import Busy, Crowd, Watchdog, hold_many, memory
from bench_hang import Sleeper, deaths, own_deaths

_TIMERS = 10
_MANY = 10_000
_AT_ONCE = 3
_CAP = 12.0
_HANG = 0.1
# Before this many workers have come, the memory of both sides grows for other reasons.
_FIRST = 50


@dataclass(frozen=True)
class Sizes:
    """How much to measure."""

    workers: int = 1000  # and again as many, later
    window: float = 5.2  # seconds
    every_pace: int = 1
    rounds: int = 3
    kills: int = 300
    many: int = 5
    brief: bool = False


_QUICK = Sizes(window=2.2, every_pace=2, rounds=1, kills=21, many=1, brief=True)

# What a single worker does: the seconds of its timers, and how many it arms a second (0: as many as it can).
_PACES = {
    "one timer a second": (60.0, 1),
    "100,000 timers a second": (60.0, 100_000),
    "timers flat out": (60.0, 0),
    "timers of 0.1 s flat out": (0.1, 0),
}


def _pace(dog: Watchdog, busy: Busy, after: float, rate: int, seconds: float) -> dict[str, float]:
    start = time.monotonic()
    busy.start(after, rate, seconds)
    blocks = busy.blocks()
    return {"blocks_per_s": blocks / (time.monotonic() - start), **dog.since(start)}


def _paces(directory: str, sizes: Sizes) -> dict[str, dict[str, float]]:
    """Medians of the rounds, for each pace of a single worker; the paces take turns."""
    paces = dict(list(_PACES.items())[:: sizes.every_pace])
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in paces}
    with contextlib.ExitStack() as stack:
        dog = Watchdog(stack, f"{directory}/paces")
        busy = Busy(stack, dog.address)
        _pace(dog, busy, 60.0, 1, sizes.window / 2)  # it connects, and both warm up
        for _ in range(sizes.rounds):
            for name, (after, rate) in paces.items():
                rounds[name].append(_pace(dog, busy, after, rate, sizes.window))
    return {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in rounds.items()
    }


def _memory(dog: Watchdog, crowd: Crowd, workers: int) -> dict[str, Any]:
    """Let workers join; returns what each of them costs, in bytes: the watchdog, and itself beyond what forked it."""
    crowd.join(_FIRST)
    before = memory(dog.pid)
    joined = workers - _FIRST
    seconds = crowd.join(joined)
    after = memory(dog.pid)
    bare, worker = memory(crowd.pid), memory(crowd.last)
    each = {
        "watchdog": {kind: (after[kind] - size) / joined for kind, size in before.items()},
        "worker": {kind: worker[kind] - size for kind, size in bare.items()},
    }
    return {"each": each, "watchdog": after, "connect_ms": seconds * 1e3}


def _lateness(stack: contextlib.ExitStack, dog: Watchdog, kills: int) -> dict[str, list[float]]:
    """Seconds from the deadline to the signal, as the watchdog tells, and to the death, as the parent sees it."""
    sleeper = Sleeper(stack)
    batch = [Channel("unhang", SHARED, "")] * _AT_ONCE
    for channel in batch:
        channel.path = dog.address
    signal: list[float] = []
    death: list[float] = []
    while len(death) < kills:
        dead = deaths(batch, [0.0] * len(batch), _CAP)
        signalled = dog.ask("signalled")
        signal += [signalled[one.pid] - one.deadline for one in dead]
        death += [one.late for one in dead]
    bare = sleeper.late()
    return {"signal": signal, "death": death, "own death": own_deaths(max(10, kills // 6)), "bare sleep": bare}


def _many_timers(dog: Watchdog, worker: Child) -> dict[str, float]:
    """A process that holds many timers at once until one of these expires."""
    worker.conn.send(_HANG)
    deadline = worker.conn.recv()
    death = exits([worker], [deadline + _CAP])[0] - deadline
    return {"signal_us": (dog.ask("signalled")[worker.pid] - deadline) * 1e6, "death_us": death * 1e6}


class _Crowds:
    """One watchdog with a thousand workers, then with two."""

    def __init__(self, stack: contextlib.ExitStack, directory: str, sizes: Sizes) -> None:
        self._stack = stack
        self._sizes = sizes
        self._dog = Watchdog(stack, f"{directory}/crowds")
        self.cpu: dict[str, dict[str, float]] = {}

    def _join(self) -> Crowd:
        return Crowd(self._stack, self._dog.address, _TIMERS)

    def _look(self, name: str) -> None:
        """Measure the watchdog as it is now."""
        if not self._sizes.brief:
            self.cpu[name] = self._dog.window(self._sizes.window)

    def many(self) -> dict[str, Any]:
        """Processes that hold many timers at once, one after the other; medians."""
        found = []
        for number in range(self._sizes.many):
            with Child(hold_many, self._dog.address, _MANY) as worker:
                arm = worker.conn.recv()
                live = self._dog.ask("live")
                if number == 0:
                    self._look(f"1, with {_MANY:,} timers")
                found.append({"live": live, "arm_us": arm * 1e6, **_many_timers(self._dog, worker)})
        return {key: statistics.median(row[key] for row in found) for key in found[0]}

    def thousand(self) -> dict[str, Any]:
        """A thousand workers: what they occupy, and how late kills are beside them."""
        found = {"memory": _memory(self._dog, self._join(), self._sizes.workers)}
        name = f"{self._dog.ask('workers'):,}"
        self.cpu[name] = self._dog.window(self._sizes.window)
        if not self._sizes.brief:
            busy = Busy(self._stack, self._dog.address)
            self.cpu[f"{name}, and one arms flat out"] = _pace(self._dog, busy, 60.0, 0, self._sizes.window)
        beside = {"workers": self._dog.ask("workers"), "timers": self._dog.ask("live")}
        return {**found, "beside": beside, "late": _lateness(self._stack, self._dog, self._sizes.kills)}

    def two_thousand(self) -> dict[str, Any]:
        """As many more."""
        self._join().join(self._sizes.workers)
        workers = self._dog.ask("workers")
        self._look(f"{workers:,}")
        return {"workers": workers}


def _crowds(directory: str, sizes: Sizes) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        crowds = _Crowds(stack, directory, sizes)
        found = {"many": crowds.many(), **crowds.thousand(), **crowds.two_thousand()}
        return {**found, "cpu": crowds.cpu, "timers_each": _TIMERS}


def main() -> None:
    """Measure single workers, and crowds."""
    arguments = section_arguments(__doc__)
    sizes = _QUICK if arguments.quick else Sizes()
    with tempfile.TemporaryDirectory() as directory:
        found = {"paces": _paces(directory, sizes), **_crowds(directory, sizes)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
