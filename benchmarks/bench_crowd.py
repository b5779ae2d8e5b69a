"""The processes of the section on many workers: a watchdog, workers by the thousand, and busy ones.

Workers by the thousand are forked from one process, each with a connection and pages of its own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import unhang
from bench_channel import WITHOUT_EVIDENCE
from bench_child import Child, Herd
from bench_hang import quiet
from unhang._platform.process import ProcessHandle
from unhang.shared_timer import SharedTimerServer

_FAR = 86_400.0
# A busy worker looks at the clock this often a second.
_BATCHES = 1000
_KIBIBYTE = 1024
# What a worker of a crowd says: the seconds that it took, and its pid.
_JOINED = struct.Struct("dq")


def _raise_limits() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def memory(pid: int) -> dict[str, int]:
    """What a process occupies, in bytes: resident, of that shared memory (pages of timers), and its fair share."""
    fields = {"resident": "VmRSS", "shared": "RssShmem", "fair_share": "Pss"}
    text = "".join(Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8") for name in ("status", "smaps_rollup"))
    sizes = dict(line.split(":", 1) for line in text.splitlines() if line.endswith("kB"))
    return {name: int(sizes[field].split()[0]) * _KIBIBYTE for name, field in fields.items()}


class Watchdog:
    """A `SharedTimerServer` in a process of its own. It gathers no evidence, and kills at the deadline."""

    def __init__(self, stack: contextlib.ExitStack, address: str) -> None:
        self.address = address
        self._child = stack.enter_context(Child(_watch, address))
        self.pid = self._child.pid
        self._child.conn.recv()

    def ask(self, question: str) -> Any:
        """One of ``turns``, ``workers``, ``live``, ``signalled``."""
        self._child.conn.send(question)
        return self._child.conn.recv()

    def since(self, start: float) -> dict[str, float]:
        """Its processor time and the turns of its loop since then, from the first of these turns to the last."""
        turns = [turn for turn in self.ask("turns") if turn[0] >= start]
        seconds, cpu = (last - first for first, last in zip(turns[0], turns[-1], strict=True))
        return {"cpu_ms_per_s": cpu / seconds * 1e3, "turns_per_s": (len(turns) - 1) / seconds}

    def window(self, seconds: float) -> dict[str, float]:
        """The same for so many seconds from now on: three or more, since it may have one turn a second."""
        start = time.monotonic()
        time.sleep(seconds)
        return self.since(start)


def _watch(conn: Connection[Any, Any], address: str) -> None:
    os.setsid()
    _raise_limits()
    quiet()
    signalled = _record_signals()
    server = SharedTimerServer(address, **WITHOUT_EVIDENCE)
    server.start()
    turns = _record_turns(server)
    answers: dict[str, Callable[[], object]] = {
        "turns": lambda: turns,
        "workers": lambda: server.workers,
        "live": lambda: _live(server),
        "signalled": lambda: signalled,
    }
    conn.send(True)
    while True:
        conn.send(answers[conn.recv()]())


def _record_signals() -> dict[int, float]:
    """A dictionary that gets the instant at which a process is signalled, right before the kernel is asked to."""
    signalled: dict[int, float] = {}
    send = ProcessHandle.send

    def recorded(handle: ProcessHandle, number: int) -> None:
        signalled[handle.pid] = time.monotonic()
        send(handle, number)

    ProcessHandle.send = recorded  # type: ignore[method-assign, assignment]
    return signalled


def _record_turns(server: SharedTimerServer) -> list[tuple[float, float]]:
    """A list that gets the instant and the processor time at the start of each turn of the server's loop."""
    turns: list[tuple[float, float]] = []
    turn = server._response.turn

    def recorded() -> bool:
        turns.append((time.monotonic(), time.process_time()))
        return turn()

    server._response.turn = recorded  # type: ignore[method-assign]
    return turns


def _live(server: SharedTimerServer) -> int:
    """How many timers the server finds armed."""
    return sum(1 for worker in server._response.watch.workers for _ in worker.timers.live())


class Crowd:
    """Workers that hold idle timers.

    Attributes:
        pid: what they are forked from.
        last: the last of them.
    """

    def __init__(self, stack: contextlib.ExitStack, address: str, timers: int) -> None:
        self._child = stack.enter_context(Child(_crowd, address, timers))
        self.pid = self.last = self._child.pid

    def join(self, workers: int) -> float:
        """Connect so many more workers; returns the seconds for each of them."""
        self._child.conn.send(workers)
        seconds, self.last = self._child.conn.recv()
        return float(seconds) / workers


def _crowd(conn: Connection[Any, Any], address: str, timers: int) -> None:
    herd = Herd()
    told, tell = os.pipe()

    def hold(end: int) -> None:
        start = time.perf_counter()
        client = unhang.SharedTimerClient(address)
        with contextlib.ExitStack() as stack:
            for number in range(timers):
                stack.enter_context(client.timer(_FAR, f"train.py:{number}"))
            os.write(tell, _JOINED.pack(time.perf_counter() - start, os.getpid()))
            os.read(end, 1)

    while True:
        seconds, last = 0.0, 0
        for _ in range(conn.recv()):
            herd.add(hold)
            took, last = _JOINED.unpack(os.read(told, _JOINED.size))
            seconds += took
        conn.send((seconds, last))


class Busy:
    """A worker that enters one block after the other."""

    def __init__(self, stack: contextlib.ExitStack, address: str) -> None:
        self._child = stack.enter_context(Child(_busy, address))

    def start(self, after: float, rate: int, seconds: float) -> None:
        """Enter blocks of ``after`` seconds, ``rate`` a second or, if that is 0, as many as can be."""
        self._child.conn.send((after, rate, seconds))

    def blocks(self) -> int:
        """Wait until it is through; returns how many blocks there were."""
        blocks: int = self._child.conn.recv()
        return blocks


def _busy(conn: Connection[Any, Any], address: str) -> None:
    unhang.configure(unhang.SharedTimerClient(address))
    while True:
        conn.send(_enter_blocks(*conn.recv()))


def _enter_blocks(after: float, rate: int, seconds: float) -> int:
    expires = unhang.expires
    batch = max(1, rate // _BATCHES) if rate else _BATCHES
    blocks = 0
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        for _ in range(batch):
            with expires(after=after):
                pass
        blocks += batch
        if rate:
            time.sleep(max(0.0, start + blocks / rate - time.monotonic()))
    return blocks


def hold_many(conn: Connection[Any, Any], address: str, timers: int) -> None:
    """A child's target: hold many timers at once, then hang in one more. Sends the seconds each took; the deadline."""
    unhang.configure(unhang.SharedTimerClient(address))
    with unhang.expires(after=_FAR, scope="warm-up"), contextlib.ExitStack() as stack:
        start = time.perf_counter()
        for _ in range(timers):
            stack.enter_context(unhang.expires(after=_FAR))
        conn.send((time.perf_counter() - start) / timers)
        after = conn.recv()
        deadline = time.monotonic() + after
        with unhang.expires(after=after):
            conn.send(deadline)
            time.sleep(60)
