"""What the scenarios for shared timers play on, and how the verdict over most of them is found."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import unhang
from chaos_stage import HANG, IN_TIME, LIMIT, TURN, Outcome, Server, Stage, Worker, failed, how_late, idle, survived
from unhang.report.model import Report, decode

# Seconds that evidence may take, and from the first signal to SIGKILL, by default.
EVIDENCE = 2.0
GRACE = 5.0
# Connections that one process makes to flood a watchdog, and the open files that this takes.
CROWD = 10_000
MANY_FILES = CROWD + 200


def count_armed(server: Any) -> int:
    """How many timers the workers of a server have armed; -1 if one of them left at this moment."""
    try:
        workers = server._response.watch.workers
        return sum(1 for worker in workers for _ in worker.timers.live())
    except ValueError:
        return -1


class SharedStage(Stage):
    """A `SharedTimerServer` and its workers.

    Args:
        bare: kill at the deadline with SIGKILL, and gather no evidence. Else the server is as it comes: evidence,
            SIGTERM, grace, SIGKILL; and it keeps reports, as that of ``unhang run`` does.

    Attributes:
        options: arguments of the server, which a scenario may add to.
        reports: the directory for reports.
    """

    count = staticmethod(count_armed)

    def __init__(self, *, bare: bool) -> None:
        super().__init__("unhang", "shared")
        self.api = unhang
        self.path = str(Path.cwd() / "watchdog.sock")
        self.reports = Path.cwd() / "reports"
        self.options: dict[str, Any] = {"signal": "none", "evidence": 0.0} if bare else {"report_dir": self.reports}
        if not bare:
            self.deadly = frozenset({signal.SIGTERM, signal.SIGKILL})
            self.limit, self.in_time = LIMIT + EVIDENCE, IN_TIME + EVIDENCE

    def build(self, max_interval: float | None) -> Any:
        """As for any stage."""
        options = self.options if max_interval is None else {"max_interval": max_interval, **self.options}
        return unhang.SharedTimerServer(self.path, **options)

    def kept(self) -> list[Report]:
        """The reports that the server has kept."""
        return [decode(path.read_bytes()) for path in sorted(self.reports.glob("*.json"))]

    def client(self) -> unhang.SharedTimerClient:
        """The client of the process that calls, which is its default from now on."""
        client = unhang.SharedTimerClient(self.path)
        unhang.configure(client)
        return client


@dataclass(frozen=True)
class Holdings:
    """What a server's process holds for its workers."""

    workers: int
    timers: int
    descriptors: int
    maps: int


def holdings(server: Any) -> Holdings:
    """Asked in the server's process."""
    maps = Path("/proc/self/maps").read_text().count("memfd:")
    return Holdings(server.workers, count_armed(server), len(list(Path("/proc/self/fd").iterdir())), maps)


def count_errors(server: Any) -> int:
    """How often a turn of the server's loop has raised, which it logs; asked in the server's process."""
    return int(server._errors)


def leave_in_time(stage: Stage, after: float, busy: float, pipe: Connection) -> None:
    """A worker that arms a timer of ``after`` seconds, and leaves its block after ``busy`` of them."""
    client = stage.client()
    with stage.api.expires(after=after, scope="in time", client=client):
        pipe.send("armed")
        time.sleep(busy)
    time.sleep(HANG)


def hang_when_told(stage: Stage, after: float, pipe: Connection) -> None:
    """A worker that is connected, waits until it is told, and hangs."""
    client = stage.client()
    client.connect()
    pipe.send("connected")
    pipe.recv()
    pipe.send(time.monotonic() + after)
    with stage.api.expires(after=after, scope="hangs", client=client):
        time.sleep(HANG)


def finish_when_told(stage: Stage, after: float, pipe: Connection) -> None:
    """A worker that is connected, waits until it is told, and is in a block for a fifth of its time."""
    client = stage.client()
    client.connect()
    pipe.send("connected")
    pipe.recv()
    with stage.api.expires(after=after, scope="in time", client=client):
        time.sleep(after / 5)
    idle(stage, pipe)


def watched_on(server: Server, hung: list[Worker], innocents: list[Worker], also: str = "") -> Outcome:
    """Survived if all who hang are killed in time, nobody else is, and nothing went wrong in the server's loop."""
    with ThreadPoolExecutor(len(hung)) as pool:
        lates = list(pool.map(Worker.lateness, hung))
    if server.dead_within(0):
        return failed(server.how_it_ended())
    killed = [late for late in lates if late is not None]
    if len(killed) < len(hung):
        return failed(f"a hung worker is alive {hung[0].limit:g} s after its deadline")
    if max(killed) > hung[0].in_time:
        return failed(f"a hung worker was {how_late(max(killed))}")
    return none_else(server, innocents, f"a hung sibling was {how_late(max(killed))}{also}")


def none_else(server: Server, innocents: list[Worker], line: str) -> Outcome:
    """Survived if nobody else is ended, the server neither, and nothing went wrong in its loop."""
    # What a server does to itself and to others comes right behind its last kill.
    gone = server.dead_within(2 * TURN)
    killed = sum(worker.killed_within(0) for worker in innocents)
    if killed:
        return failed(f"innocent workers killed: {killed} of {len(innocents)}")
    if gone:
        return failed(server.how_it_ended())
    errors = server.ask(count_errors)
    return failed(f"{line}, but the watchdog's loop raised {errors} times") if errors else survived(line)
