"""Runs the workers of the demo under real servers, and sees what becomes of them."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import unhang
from unhang.cli.demo_workers import BEHAVIOURS, Behaviour, work

# A worker that should have been killed and was not is ended so many seconds behind its deadline.
_PATIENCE = 5.0
# Milliseconds behind the deadline. The servers need one or two; a machine that is busy needs more.
TOLERATED_MS = 250.0


@dataclass
class Worker:
    """One worker of the demo, and what was seen of it."""

    via: str
    behaviour: Behaviour
    process: SpawnProcess
    report: connection.Connection
    deadline: float | None = None  # monotonic, seconds
    ended: float | None = None
    gave_up: bool = False

    @property
    def late_ms(self) -> float | None:
        """Milliseconds from the deadline to the end of the process."""
        if self.ended is None or self.deadline is None:
            return None
        return (self.ended - self.deadline) * 1000

    @property
    def killed(self) -> bool:
        """Whether the process was killed, and not by this demo."""
        return self.process.exitcode == -signal.SIGKILL and not self.gave_up

    @property
    def as_it_should(self) -> bool:
        """Whether it became of the worker what should become of it."""
        if not self.behaviour.hangs:
            return self.process.exitcode == 0
        return self.killed and self.late_ms is not None and 0 <= self.late_ms <= TOLERATED_MS


@contextlib.contextmanager
def servers(via: list[str]) -> Iterator[dict[str, unhang.TimerClient]]:
    """Start a server for each way in ``via``, at default intervals; yields the clients for the workers."""
    # The table says what becomes of the workers.
    logging.getLogger("unhang.watchdog").setLevel(logging.CRITICAL)
    clients: dict[str, unhang.TimerClient] = {}
    with contextlib.ExitStack() as stack:
        if "shared" in via:
            shared = unhang.SharedTimerServer()
            stack.callback(shared.stop)
            shared.start()
            clients["shared"] = unhang.SharedTimerClient(shared.address)  # type: ignore[assignment] # it is registered
        if "queue" in via:
            queue = multiprocessing.get_context("spawn").Queue()
            local = unhang.LocalTimerServer(queue)
            stack.callback(local.stop)
            local.start()
            clients["queue"] = unhang.LocalTimerClient(queue)
        if "fifo" in via:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="unhang-demo-"))
            path = str(Path(directory) / "timers")
            file_based = unhang.FileTimerServer(path, run_id="demo")
            stack.callback(file_based.stop)
            file_based.start()
            clients["fifo"] = unhang.FileTimerClient(path)
        yield clients


def start(clients: dict[str, unhang.TimerClient], after: float) -> list[Worker]:
    """Start the eight workers once for each client."""
    spawn = multiprocessing.get_context("spawn")
    workers = []
    for via, client in clients.items():
        for index, behaviour in enumerate(BEHAVIOURS):
            ours, theirs = spawn.Pipe(duplex=False)
            process = spawn.Process(target=work, args=(index, client, after, theirs), daemon=True)
            process.start()
            theirs.close()
            workers.append(Worker(via, behaviour, process, ours))
    return workers


def watch(workers: list[Worker], after: float, show: Callable[[], None]) -> None:
    """Wait until all workers have ended; call ``show`` when something happened, and ten times a second."""
    give_up = time.monotonic() + 30 + after + _PATIENCE
    while running := [worker for worker in workers if worker.ended is None]:
        silent = [worker.report for worker in running if worker.deadline is None and not worker.report.closed]
        ready = connection.wait([*silent, *(worker.process.sentinel for worker in running)], timeout=0.1)
        now = time.monotonic()
        for worker in running:
            _look(worker, ready, now)
            deadline = give_up if worker.deadline is None else worker.deadline + _PATIENCE
            if worker.ended is None and now > deadline:
                worker.gave_up = True
                worker.process.kill()
        show()


def _look(worker: Worker, ready: Sequence[object], now: float) -> None:
    if worker.report in ready:
        with contextlib.suppress(EOFError):
            worker.deadline = worker.report.recv()
        worker.report.close()
    if worker.process.sentinel in ready:
        worker.ended = now
        worker.process.join()
