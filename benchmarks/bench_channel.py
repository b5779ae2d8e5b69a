"""The same clients and servers from either library, unhang's shared timers, and what the sections share.

torch's server on the named pipe sleeps for the shorter of a second and ``max_interval`` whenever the pipe is
empty, and a pipe that fills up meanwhile raises BlockingIOError in the worker. So, outside the section on
lateness, it gets a ``max_interval`` of 0.1 s and a pipe of 1 MiB. The watchdog of shared timers gathers no evidence
unless it is asked to, and kills at the deadline with SIGKILL, as the other servers do; these run as they come.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# unhang again, in a process with UNHANG_PURE=1; only its shared timers differ.
PLAIN = "unhang, plain Python"
MODULES = {"unhang": "unhang", PLAIN: "unhang", "torch": "torch.distributed.elastic.timer"}
# What both libraries have; the server gets a request for each arming.
KINDS = ("queue", "FIFO")
SHARED = "shared"
# Arguments of a `SharedTimerServer` that does as the others do.
WITHOUT_EVIDENCE: dict[str, Any] = {"signal": "none", "evidence": 0.0}
TORCH_FIFO_INTERVAL = 0.1
_ROOM = 1 << 20
_FAR = 86_400.0
_MOST_SECONDS = 30.0
_ITERATION_SECONDS = 0.2


def kinds(library: str) -> tuple[str, ...]:
    """The kinds of timers that a library has."""
    if library == PLAIN:
        return (SHARED,)
    return (*KINDS, SHARED) if library == "unhang" else KINDS


class Channel:
    """One way from workers to a server. Make it before the processes that use it are forked.

    Args:
        library: whose.
        kind: of timers.
        directory: for the server's address.
        evidence: whether the watchdog of shared timers is as it comes: it gathers evidence, then sends SIGTERM.

    Attributes:
        deadly: the signal by which the server ends workers.
    """

    def __init__(self, library: str, kind: str, directory: str, *, evidence: bool = False) -> None:
        self.library = library
        self.kind = kind
        self.evidence = evidence
        self.deadly = signal.SIGTERM if evidence else signal.SIGKILL
        self.timer: Any = importlib.import_module(MODULES[library])
        self._queue = multiprocessing.get_context("fork").Queue() if kind == "queue" else None
        self.path = str(Path(directory) / str(time.monotonic_ns()))

    def client(self) -> Any:
        """A client for the process that asks."""
        if self.kind == SHARED:
            return self.timer.SharedTimerClient(self.path)
        if self.kind == "queue":
            return self.timer.LocalTimerClient(self._queue)
        return self.timer.FileTimerClient(self.path)

    def server(self) -> Any:
        """A server at its default interval, not started."""
        if self.kind == SHARED:
            return self.timer.SharedTimerServer(self.path, **({} if self.evidence else WITHOUT_EVIDENCE))
        if self.kind == "queue":
            return self.timer.LocalTimerServer(self._queue)
        return self.timer.FileTimerServer(self.path, "bench")

    def quick_server(self) -> Any:
        """As `server`, but one that can be sent thousands of requests a second."""
        if (self.library, self.kind) != ("torch", "FIFO"):
            return self.server()
        server = self.timer.FileTimerServer(self.path, "bench", max_interval=TORCH_FIFO_INTERVAL)
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _ROOM)  # the descriptor stays open, or the pipe would shrink
        return server

    def request(self, pid: int, scope: str, expiration_time: float) -> Any:
        """A request as the server's ``register_timers`` takes it."""
        if self.kind == "queue":
            return self.timer.TimerRequest(pid, scope, expiration_time)
        return self.timer.FileTimerRequest(pid, scope, expiration_time, 9)


def serve(conn: Connection[Any, Any], channel: Channel, live: int = 0, pid: int = 0) -> None:
    """A child's target: run a server over ``live`` timers of the process ``pid``.

    Sends the CPU seconds of one turn of the loop, once it serves. Then, for each number of requests received,
    sends True, and when that many have been handled, or the time is over, ``(CPU seconds, requests handled)``.
    """
    server = channel.quick_server()
    far = time.time() + _FAR
    server.register_timers([channel.request(pid, f"train.py:{number}", far) for number in range(live)])
    turn = _turn(server, channel)
    meter = Meter(server)
    server.start()
    conn.send(turn)
    while True:
        expected = conn.recv()
        before = time.process_time()
        meter.expect(expected)
        conn.send(True)
        meter.reached.wait(_MOST_SECONDS)
        conn.send((time.process_time() - before, meter.handled))


class Meter:
    """Counts the requests that a server has registered."""

    def __init__(self, server: Any) -> None:
        self.handled = 0
        self.reached = threading.Event()
        self._expected = 0
        self._register: Callable[[list[Any]], None] = server.register_timers
        server.register_timers = self._count

    def _count(self, requests: list[Any]) -> None:
        self._register(requests)
        self.handled += len(requests)
        if self.handled >= self._expected > 0:
            self.reached.set()

    def expect(self, count: int) -> None:
        """Count from zero; ``reached`` is set at this many."""
        self.reached.clear()
        self.handled = 0
        self._expected = count


def _turn(server: Any, channel: Channel) -> float:
    """CPU seconds of one turn of a server's loop that finds no request and nothing expired."""
    interval, server._max_interval = server._max_interval, 0
    arguments: list[Any] = []
    if channel.kind == "FIFO" and channel.library == "unhang":
        arguments = [server._open()]
    elif channel.kind == "FIFO":
        arguments = [open(os.open(channel.path, os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8")]  # noqa: PTH123, SIM115
    server._run_watchdog(*arguments)
    turns = 0
    start = now = time.process_time()
    while turns < 3 or (turns < 1000 and now - start < _ITERATION_SECONDS):
        server._run_watchdog(*arguments)
        turns += 1
        now = time.process_time()
    server._max_interval = interval
    return (now - start) / turns


def section_arguments(description: str | None) -> argparse.Namespace:
    """What ``bench.py`` tells the script of a section: ``quick``, and a list of ``libraries``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--libraries", nargs="+", choices=tuple(MODULES), default=["unhang"])
    return parser.parse_args()
