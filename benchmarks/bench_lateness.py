"""From the deadline to the worker's death, as its parent sees it: prints JSON, a list of seconds for each server.

Servers run at their default intervals, each in a process of its own. Workers are children of a small process,
so that little is left to do when they die. Beside it, how late a bare ``time.sleep`` returns.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any

from bench_channel import KINDS, Channel, section_arguments
from bench_child import Child, exits

_SHORTEST, _LONGEST = 0.05, 0.2
_AT_ONCE = 3
_TORCH_SAMPLES = 5
_TORCH_FIFO_TURN = 10.0
# Seconds behind the deadline after which a worker counts as not killed.
_CAP = 12.0
_QUICK_CAP = 2.0
_SIGKILL = 9


def _timeout() -> float:
    return random.uniform(_SHORTEST, _LONGEST)  # noqa: S311 - no secret


def _serve(conn: Connection[Any, Any], channel: Channel) -> None:
    os.setsid()
    channel.server().start()
    conn.send(True)
    conn.recv()


def _hang(conn: Connection[Any, Any], channel: Channel, phase: float) -> None:
    """Arm a timer, tell its deadline, and hang."""
    timer = channel.timer
    timer.configure(channel.client())
    with timer.expires(after=60, scope="warm-up"):
        pass
    time.sleep(phase)
    after = _timeout()
    deadline = time.monotonic() + after
    with timer.expires(after=after):
        conn.send(deadline)
        time.sleep(60)


def _sleep(conn: Connection[Any, Any]) -> None:
    """Measure bare sleeps until told to stop."""
    late = []
    while not conn.poll():
        after = _timeout()
        until = time.monotonic() + after
        time.sleep(after)
        late.append(time.monotonic() - until)
    conn.send(late)


def _lateness(channels: list[Channel], phases: list[float], cap: float) -> list[float]:
    """How late one worker of each channel dies; infinity for one that outlives its deadline by ``cap`` seconds."""
    workers = [Child(_hang, channel, phase) for channel, phase in zip(channels, phases, strict=True)]
    deadlines = [worker.conn.recv() for worker in workers]
    seen = exits(workers, [deadline + cap for deadline in deadlines])
    for worker, end in zip(workers, seen, strict=True):
        if worker.end() != _SIGKILL:
            raise RuntimeError(f"worker {worker.pid} ended by itself at {end}")
    return [end - deadline for end, deadline in zip(seen, deadlines, strict=True)]


def _ours(directory: str, count: int) -> dict[str, list[float]]:
    """Workers of both servers in batches, and the sleepers next to them."""
    late: dict[str, list[float]] = {f"unhang {kind}": [] for kind in KINDS}
    channels = [Channel("unhang", kind, directory) for kind in KINDS]
    with contextlib.ExitStack() as stack:
        for channel in channels:
            stack.enter_context(Child(_serve, channel)).conn.recv()
        sleepers = [stack.enter_context(Child(_sleep)) for _ in channels]
        while len(late["unhang queue"]) < count:
            batch = channels * _AT_ONCE
            for channel, seconds in zip(batch, _lateness(batch, [0.0] * len(batch), _CAP), strict=True):
                late[f"unhang {channel.kind}"].append(seconds)
        for sleeper in sleepers:
            sleeper.conn.send(True)
        late["bare sleep"] = [seconds for sleeper in sleepers for seconds in sleeper.conn.recv()]
    return late


def _torchs(directory: str, samples: int, cap: float) -> dict[str, list[float]]:
    """All samples at once, since most of it is waiting.

    The server on the named pipe kills itself behind its first kill, so each sample has its own. It looks every
    ten seconds, counted from the first request, and the timers are spread over that time as far as the cap
    lets them be killed at all. The queue's server is the same for all: it looks when a request comes, or a
    minute after the last one.
    """
    queue = Channel("torch", "queue", directory)
    fifos = [Channel("torch", "FIFO", directory) for _ in range(samples)]
    turn = _TORCH_FIFO_TURN if cap > _TORCH_FIFO_TURN else 0.0
    phases = [0.0] * samples + [turn * place / samples for place in range(samples)]
    with contextlib.ExitStack() as stack:
        for channel in (queue, *fifos):
            stack.enter_context(Child(_serve, channel)).conn.recv()
        late = _lateness([queue] * samples + fifos, phases, cap)
    return {"torch queue": late[:samples], "torch FIFO": late[samples:]}


def main() -> None:
    """Measure one library."""
    arguments = section_arguments(__doc__)
    cap = _QUICK_CAP if arguments.quick else _CAP
    with tempfile.TemporaryDirectory() as directory:
        if "torch" in arguments.libraries:
            late = _torchs(directory, 2 if arguments.quick else _TORCH_SAMPLES, cap)
        else:
            late = _ours(directory, 30 if arguments.quick else 300)
    finite = {name: [None if value == math.inf else value for value in values] for name, values in late.items()}
    json.dump({"cap": cap, "late": finite}, sys.stdout)


if __name__ == "__main__":
    main()
