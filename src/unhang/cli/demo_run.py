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
from unhang.report.about import frame_of
from unhang.report.model import Report
from unhang.report.model import Worker as Reported

# A worker that should have been killed and was not is ended so many seconds behind its deadline.
_PATIENCE = 5.0
# Milliseconds behind the deadline. The servers of the timer contract need one or two, and a machine that is busy needs
# more; that of shared timers finds out first where the workers hang, five of them at once.
TOLERATED_MS = {"shared": 1500.0, "queue": 250.0, "fifo": 250.0}
_KILLS = {-signal.SIGTERM, -signal.SIGKILL}


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
    found: str = ""  # how and where it hung, as the report has it

    @property
    def late_ms(self) -> float | None:
        """Milliseconds from the deadline to the end of the process."""
        if self.ended is None or self.deadline is None:
            return None
        return (self.ended - self.deadline) * 1000

    @property
    def killed(self) -> bool:
        """Whether the process was killed, and not by this demo."""
        return self.process.exitcode in _KILLS and not self.gave_up

    @property
    def as_it_should(self) -> bool:
        """Whether it became of the worker what should become of it."""
        if not self.behaviour.hangs:
            return self.process.exitcode == 0
        return self.killed and self.late_ms is not None and 0 <= self.late_ms <= TOLERATED_MS[self.via]


@contextlib.contextmanager
def servers(via: list[str], reports: list[Report]) -> Iterator[dict[str, unhang.TimerClient]]:
    """Start a server for each way in ``via``, at default intervals; yields the clients for the workers.

    What it reports is in ``reports`` afterwards.
    """
    # The table says what becomes of the workers.
    logging.getLogger("unhang.watchdog").setLevel(logging.CRITICAL)
    clients: dict[str, unhang.TimerClient] = {}
    with contextlib.ExitStack() as stack:
        if "shared" in via:
            shared = unhang.SharedTimerServer(on_expired=reports.append)
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


def find(workers: list[Worker], reports: list[Report]) -> None:
    """Let the workers know what was reported of them."""
    found = {seen.pid: _found(seen) for report in reports for seen in report.workers if seen.expired}
    for worker in workers:
        worker.found = found.get(worker.process.pid or 0, "")


def _found(seen: Reported) -> str:
    frame = frame_of(seen)
    place = "" if frame is None else f", {Path(frame.file).name}:{frame.line}"
    return f"{seen.evidence.hang}{place}" if seen.evidence else ""


def _look(worker: Worker, ready: Sequence[object], now: float) -> None:
    if worker.report in ready:
        with contextlib.suppress(EOFError):
            worker.deadline = worker.report.recv()
        worker.report.close()
    if worker.process.sentinel in ready:
        worker.ended = now
        worker.process.join()
