"""What `unhang top` costs the watchdog that it looks at, and the lateness of its kills: prints JSON.

With a real `unhang top` in a terminal, at one look a second, and without it, in turns. Each worker of the
crowd restarts its timer twice a second: what they do is news for the viewer.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import unhang
from bench_channel import SHARED, Channel, section_arguments
from bench_child import Child, Herd
from bench_crowd import Watchdog
from bench_hang import deaths

_FAR = 86_400.0
_AT_ONCE = 3
_CAP = 12.0
# What the last line of a whole screen has.
_DRAWN = b"quit"
# Seconds between two restarts of a worker's timer.
_ROUND = 0.5


@dataclass(frozen=True)
class Sizes:
    """How much to measure: windows in seconds, and kills in each of the rounds, with a viewer and without."""

    crowds: tuple[int, ...] = (200, 1000)
    window: float = 4.2
    rounds: int = 3
    kills: int = 75


_QUICK = Sizes(window=3.2, rounds=1, kills=21)


class Crowd:
    """Workers that go on."""

    def __init__(self, stack: contextlib.ExitStack, address: str, workers: int) -> None:
        stack.enter_context(Child(_go_on, address, workers)).conn.recv()


def _go_on(conn: Connection[Any, Any], address: str, workers: int) -> None:
    os.setsid()
    herd = Herd()
    told, tell = os.pipe()

    def go_on(end: int) -> None:
        with unhang.SharedTimerClient(address).timer(_FAR, "train.py:88") as timer:
            os.write(tell, b"!")
            while not select.select([end], [], [], _ROUND)[0]:
                timer.restart()

    for _ in range(workers):
        herd.add(go_on)
        os.read(told, 1)
    conn.send(True)
    conn.recv()


def _view(conn: Connection[Any, Any], address: str) -> None:
    """A child's target: `unhang top` in a terminal, whose output is read and thrown away."""
    pid, terminal = pty.fork()
    if pid == 0:
        command = [sys.executable, "-m", "unhang", "top", "--address", address]
        os.execve(sys.executable, command, {**os.environ, "TERM": "xterm"})  # noqa: S606 - as a shell does
    told = False
    while True:
        data = os.read(terminal, 65536)
        if _DRAWN in data and not told:
            told = True
            conn.send(True)


@contextlib.contextmanager
def _viewed(address: str, *, viewed: bool) -> Any:
    """With a viewer that has drawn its first screen, or without one."""
    if not viewed:
        yield
        return
    with Child(_view, address) as viewer:
        viewer.conn.recv()
        yield


def _load(address: str, dog: Watchdog, sizes: Sizes) -> dict[str, float]:
    """The watchdog's processor time with and without a viewer, medians of windows in turns."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(sizes.rounds):
        for viewed, row in found.items():
            with _viewed(address, viewed=viewed):
                time.sleep(1.0)  # what a viewer gets at first is no load of every second
                row.append(dog.window(sizes.window)["cpu_ms_per_s"])
    without, with_ = (statistics.median(row) for row in found.values())
    return {"without_ms_per_s": without, "with_ms_per_s": with_}


def _lateness(address: str, dog: Watchdog, sizes: Sizes) -> dict[str, list[float]]:
    """Seconds from the deadline to the signal, as the watchdog tells, in turns."""
    late: dict[str, list[float]] = {"without": [], "with": []}
    batch = [Channel("unhang", SHARED, "") for _ in range(_AT_ONCE)]
    for channel in batch:
        channel.path = address
    for _ in range(sizes.rounds):
        for name, row in late.items():
            with _viewed(address, viewed=name == "with"):
                for _ in range(sizes.kills // _AT_ONCE):
                    dead = deaths(batch, [0.0] * len(batch), _CAP)
                    signalled = dog.ask("signalled")
                    row += [signalled[one.pid] - one.deadline for one in dead]
    return late


def main() -> None:
    """Measure crowds, one after the other."""
    arguments = section_arguments(__doc__)
    sizes = _QUICK if arguments.quick else Sizes()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for workers in sizes.crowds:
            with contextlib.ExitStack() as stack:
                dog = Watchdog(stack, f"{directory}/{workers}")
                Crowd(stack, dog.address, workers)
                found[str(workers)] = {
                    "load": _load(dog.address, dog, sizes),
                    "late": _lateness(dog.address, dog, sizes),
                }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
