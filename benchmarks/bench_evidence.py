"""What evidence costs: the time to the first signal, and what workers that are well notice of it. Prints JSON.

A worker that hangs is looked at before it is signalled; the time from its deadline to that signal is beside the same
without evidence. Workers that are well, of the same job as the one that hangs, compute in blocks of about a millisecond
and measure these: blocks while evidence is taken, beside blocks shortly before.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import unhang
from bench_channel import section_arguments
from bench_child import Child, exits
from bench_hang import quiet
from unhang.shared_timer import SharedTimerServer

_AFTER = 0.2
_RANKS = 8
_PATIENCE = 15.0


@dataclass(frozen=True)
class Sizes:
    """How much to measure."""

    rounds: int = 5  # of all kinds of hangs
    jobs: int = 5
    beside: int = 20  # hangs beside workers that are well


_QUICK = Sizes(rounds=1, jobs=1, beside=3)


def _in_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _in_loop() -> None:
    while True:
        pass


def _in_native_gil() -> None:
    ctypes.PyDLL(None).sleep(60)


def _in_native() -> None:
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)


def _in_pattern() -> None:
    re.match(r"(\w+\s?)+;", "the quick brown fox jumps over the lazy dog and runs away")


def _in_recv() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.recv(1)


def _in_read() -> None:
    reader, _ = os.pipe()
    os.read(reader, 1)


def _asleep() -> None:
    time.sleep(60)


_KINDS: dict[str, Callable[[], None]] = {
    "asleep": _asleep,
    "lock": _in_lock,
    "recv": _in_recv,
    "read": _in_read,
    "native with the GIL": _in_native_gil,
    "native without it": _in_native,
    "Python loop": _in_loop,
    "regular expression": _in_pattern,
}


class _Watchdog:
    """A `SharedTimerServer` in a process of its own, that notes when it has sent a first signal."""

    def __init__(self, stack: contextlib.ExitStack, address: str, *, evidence: bool) -> None:
        self.address = address
        self._child = stack.enter_context(Child(_watch, address, 2.0 if evidence else 0.0))
        self._child.conn.recv()

    def signalled(self) -> dict[int, float]:
        """When each worker was signalled first, monotonic seconds."""
        self._child.conn.send(True)
        found: dict[int, float] = self._child.conn.recv()
        return found


def _watch(conn: Connection[Any, Any], address: str, evidence: float) -> None:
    os.setsid()
    quiet()
    signalled: dict[int, float] = {}

    def note(event: str, pid: int | None, timers: Sequence[object]) -> None:  # noqa: ARG001 - as it is called
        if event == "killed" and pid is not None:
            signalled.setdefault(pid, time.monotonic())

    with tempfile.TemporaryDirectory() as reports:
        signal = "SIGTERM" if evidence else "none"
        SharedTimerServer(address, signal=signal, evidence=evidence, report_dir=reports, on_event=note).start()
        conn.send(True)
        with contextlib.suppress(EOFError):
            while conn.recv():
                conn.send(signalled)


def _join(address: str, job: str, rank: int | None = None) -> None:
    os.environ["UNHANG_JOB"] = job
    if rank is not None:
        os.environ["RANK"] = str(rank)
    unhang.configure(unhang.SharedTimerClient(address))
    with unhang.expires(after=60, scope="warm-up"):
        pass


def _hang(conn: Connection[Any, Any], address: str, kind: str, job: str, rank: int | None = None) -> None:
    """A child's target: wait for a word, tell the deadline, and hang."""
    _join(address, job, rank)
    conn.send(True)
    conn.recv()
    deadline = time.monotonic() + _AFTER
    with unhang.expires(after=_AFTER, scope="step"):
        conn.send(deadline)
        _KINDS[kind]()


def _let_hang(dog: _Watchdog, kinds: Sequence[str], job: str, *, ranks: bool) -> list[tuple[float, float]]:
    """Let as many workers hang together; their deadlines and when they were signalled first."""
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Child(_hang, dog.address, kind, job, rank if ranks else None))
            for rank, kind in enumerate(kinds)
        ]
        for worker in workers:
            worker.conn.recv()
        for worker in workers:
            worker.conn.send(True)
        deadlines = [worker.conn.recv() for worker in workers]
        exits(workers, [deadline + _PATIENCE for deadline in deadlines])
        signalled = dog.signalled()
        return [(deadline, signalled[worker.pid]) for worker, deadline in zip(workers, deadlines, strict=True)]


def _singles(dog: _Watchdog, rounds: int) -> dict[str, list[float]]:
    """Milliseconds from the deadline to the first signal, of workers that hang one after the other."""
    found: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for turn in range(rounds):
        for kind, late in found.items():
            ((deadline, signal),) = _let_hang(dog, [kind], f"{kind} {turn}", ranks=False)
            late.append((signal - deadline) * 1e3)
    return found


def _jobs(dog: _Watchdog, rounds: int) -> dict[str, list[float]]:
    """The same for jobs of ranks that hang together: from the first deadline to the first and the last signal."""
    found: dict[str, list[float]] = {"first": [], "last": []}
    for turn in range(rounds):
        hung = _let_hang(dog, ["recv"] * _RANKS, f"job {turn}", ranks=True)
        begun = min(deadline for deadline, _ in hung)
        found["first"].append((min(signal for _, signal in hung) - begun) * 1e3)
        found["last"].append((max(signal for _, signal in hung) - begun) * 1e3)
    return found


def _be_well(conn: Connection[Any, Any], address: str, job: str, pause: float) -> None:
    """A child's target: enter one block after the other until told to stop; sends when each began and what it took."""
    _join(address, job)
    blocks = []
    conn.send(True)
    while not conn.poll():
        start = time.monotonic()
        with unhang.expires(after=60, scope="healthy"):
            hashlib.pbkdf2_hmac("sha256", b"", b"", 4000)
            if pause:
                time.sleep(pause)
        blocks.append((start, time.monotonic() - start))
    conn.send(blocks)


def _beside(dog: _Watchdog, hangs: int) -> dict[str, Any]:
    """Blocks of workers that are well: one computes without a pause, one sleeps in each block."""
    job = "beside"
    pauses = {"computes": 0.0, "mostly sleeps": 0.005}
    kinds = ["asleep", "lock", "recv", "read", "native with the GIL"]
    with contextlib.ExitStack() as stack:
        wells = {name: stack.enter_context(Child(_be_well, dog.address, job, pause)) for name, pause in pauses.items()}
        for well in wells.values():
            well.conn.recv()
        hung = [_let_hang(dog, [kinds[turn % len(kinds)]], job, ranks=False)[0] for turn in range(hangs)]
        for well in wells.values():
            well.conn.send(True)
        blocks = {name: well.conn.recv() for name, well in wells.items()}
    return {name: _compared(some, hung) for name, some in blocks.items()}


def _compared(blocks: Sequence[tuple[float, float]], hung: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Blocks while evidence was taken, beside those in the timeout before."""
    meanwhile = [
        took for start, took in blocks if any(deadline <= start + took and start <= signal for deadline, signal in hung)
    ]
    before = [
        took
        for start, took in blocks
        if any(deadline - _AFTER / 2 <= start and start + took < deadline for deadline, _ in hung)
    ]
    found: dict[str, float] = {"blocks": len(meanwhile), "quiet_blocks": len(before)}
    if min(len(meanwhile), len(before)) < 2:
        return found
    for name, of in _FIGURES.items():
        found |= {f"{name}_ms": of(meanwhile) * 1e3, f"quiet_{name}_ms": of(before) * 1e3}
        found[f"{name}_ratio"] = of(meanwhile) / of(before)
    return found


def _p90(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=10)[-1]


_FIGURES: dict[str, Callable[[Sequence[float]], float]] = {
    "median": statistics.median,
    "mean": statistics.fmean,
    "p90": _p90,
}


def _measured(stack: contextlib.ExitStack, directory: str, sizes: Sizes, *, evidence: bool) -> dict[str, Any]:
    dog = _Watchdog(stack, f"{directory}/{'with' if evidence else 'without'}", evidence=evidence)
    singles = _singles(dog, sizes.rounds)
    jobs = _jobs(dog, sizes.jobs)
    late = [value for values in singles.values() for value in values]
    return {
        "single_ms": {"median": statistics.median(late), "p90": _p90(late), "most": max(late), "count": len(late)},
        "single_ms_by_kind": {kind: statistics.median(values) for kind, values in singles.items()},
        "job_ms": {name: statistics.median(values) for name, values in jobs.items()},
        **({"beside": _beside(dog, sizes.beside)} if evidence else {}),
    }


def main() -> None:
    """Measure with evidence and without."""
    sizes = _QUICK if section_arguments(__doc__).quick else Sizes()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        found = {
            name: _measured(stack, directory, sizes, evidence=evidence)
            for name, evidence in (("without", False), ("with", True))
        }
    added = found["with"]["single_ms"]["median"] - found["without"]["single_ms"]["median"]
    json.dump({**found, "added_ms": added, "ranks": _RANKS}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
