"""Workers that arm a timer and hang, and what it is compared with: bare sleeps, and a worker's death by itself."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from bench_channel import Channel
from bench_child import Child, exits

_SHORTEST, _LONGEST = 0.05, 0.2
_PATIENCE = 10.0


@dataclass(frozen=True)
class Death:
    """One worker that hung; instants in monotonic seconds, ``seen`` infinity if it lived on."""

    pid: int
    deadline: float
    seen: float

    @property
    def late(self) -> float:
        """Seconds from the deadline to the death, as the parent saw it."""
        return self.seen - self.deadline


def _timeout() -> float:
    return random.uniform(_SHORTEST, _LONGEST)  # noqa: S311 - no secret


def quiet() -> None:
    """Keep the server's line about each kill off the terminal; its errors are still printed."""
    logging.getLogger("unhang.watchdog").addHandler(logging.NullHandler())


def serve_as_is(conn: Connection[Any, Any], channel: Channel) -> None:
    """A child's target: a server at its default interval."""
    os.setsid()
    quiet()
    channel.server().start()
    conn.send(True)
    conn.recv()


def _hang(conn: Connection[Any, Any], channel: Channel, phase: float) -> None:
    """Arm a timer, tell its deadline, and hang."""
    timer = channel.timer
    os.environ["UNHANG_JOB"] = str(os.getpid())  # so that each hang is one by itself
    timer.configure(channel.client())
    with timer.expires(after=60, scope="warm-up"):
        pass
    time.sleep(phase)
    after = _timeout()
    deadline = time.monotonic() + after
    with timer.expires(after=after):
        conn.send(deadline)
        time.sleep(60)


def deaths(channels: Sequence[Channel], phases: Sequence[float], cap: float) -> list[Death]:
    """Let one worker of each channel hang; whoever outlives its deadline by ``cap`` seconds is not waited for."""
    workers = [Child(_hang, channel, phase) for channel, phase in zip(channels, phases, strict=True)]
    deadlines = [worker.conn.recv() for worker in workers]
    seen = exits(workers, [deadline + cap for deadline in deadlines])
    for worker, channel, end in zip(workers, channels, seen, strict=True):
        # Whoever is not waited for is killed here.
        if worker.end() not in (channel.deadly, signal.SIGKILL):
            raise RuntimeError(f"worker {worker.pid} ended by itself at {end}")
    return [Death(worker.pid, deadline, end) for worker, deadline, end in zip(workers, deadlines, seen, strict=True)]


class Sleeper:
    """A child that measures how late a bare ``time.sleep`` returns, until the context is left."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._child = stack.enter_context(Child(_sleep))

    def late(self) -> list[float]:
        """Stop; returns the seconds."""
        self._child.conn.send(True)
        late: list[float] = self._child.conn.recv()
        return late


def _sleep(conn: Connection[Any, Any]) -> None:
    """Measure bare sleeps until told to stop."""
    late = []
    while not conn.poll():
        after = _timeout()
        until = time.monotonic() + after
        time.sleep(after)
        late.append(time.monotonic() - until)
    conn.send(late)


def _idle(conn: Connection[Any, Any]) -> None:
    conn.send(True)
    conn.recv()


def own_deaths(count: int) -> list[float]:
    """Seconds from the signal to the death, as the parent sees it, of workers that their parent kills itself."""
    found = []
    for _ in range(count):
        with Child(_idle) as worker:
            worker.conn.recv()
            time.sleep(_SHORTEST / 2)
            sent = time.monotonic()
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
            found.append(exits([worker], [sent + _PATIENCE])[0] - sent)
    return [seconds for seconds in found if seconds < math.inf]
