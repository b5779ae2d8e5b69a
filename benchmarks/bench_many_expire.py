"""How late the first signals are when many workers expire at the same moment.

    python benchmarks/bench_many_expire.py 100 300 1000

The watchdog is a process of its own, with evidence as it is by default. The workers are forked from one process, and
their timers have one deadline.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import sys
import tempfile
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import unhang
from unhang._platform.process import ProcessHandle
from unhang.shared_timer import SharedTimerServer

# Seconds from the start of the first worker to the deadline, for each.
_FOR_EACH = 0.02
_LEAST = 3.0
# Seconds behind the deadline at which all signals have been sent.
_PATIENCE = 20.0


def _watch(pipe: Connection[Any, Any], address: str, directory: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logging.getLogger("unhang").addHandler(logging.NullHandler())
    logging.getLogger("unhang").propagate = False
    signalled = _record_signals()
    server = SharedTimerServer(address, report_dir=directory, grace=60)
    server.start()
    pipe.send(os.getpid())
    while pipe.recv() == "signalled":
        pipe.send((dict(signalled), server.workers))
    os._exit(0)


def _record_signals() -> dict[int, float]:
    """A dictionary that gets the instant at which a process is first asked to end."""
    signalled: dict[int, float] = {}
    send = ProcessHandle.send

    def recorded(handle: ProcessHandle, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGKILL):
            signalled.setdefault(handle.pid, time.monotonic())
        send(handle, number)

    ProcessHandle.send = recorded  # type: ignore[method-assign, assignment]
    return signalled


def _work(address: str, deadline: float) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    client = unhang.SharedTimerClient(address)
    client.connect()
    with unhang.expires(deadline - time.monotonic(), "block", client=client):
        time.sleep(300)


def _fork(function: Any, *args: Any) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function(*args)
        finally:
            os._exit(1)
    return pid


def measure(count: int) -> tuple[list[float], int]:
    """Seconds behind the deadline at which each worker got its first signal, in order; and how many never did."""
    with tempfile.TemporaryDirectory() as directory:
        ours, theirs = Pipe()
        watchdog = _fork(_watch, theirs, f"{directory}/watchdog.sock", directory)
        ours.recv()
        deadline = time.monotonic() + max(_LEAST, count * _FOR_EACH)
        pids = [_fork(_work, f"{directory}/watchdog.sock", deadline) for _ in range(count)]
        time.sleep(max(0.0, deadline - time.monotonic()) + 2.0)
        signalled: dict[int, float] = {}
        while len(signalled) < count and time.monotonic() < deadline + _PATIENCE:
            time.sleep(1.0)
            ours.send("signalled")
            signalled = ours.recv()[0]
        for pid in (watchdog, *pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        late = sorted(signalled[pid] - deadline for pid in pids if pid in signalled)
        return late, count - len(late)


def main() -> None:
    """Print a table."""
    print(f"{'workers':>8}{'first':>9}{'median':>9}{'last':>9}{'none':>6}")
    for count in map(int, sys.argv[1:] or ["100", "300", "1000"]):
        late, missed = measure(count)
        print(f"{count:8}{late[0]:7.2f} s{late[len(late) // 2]:7.2f} s{late[-1]:7.2f} s{missed:6}", flush=True)


if __name__ == "__main__":
    main()
