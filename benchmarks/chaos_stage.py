"""What the scenarios of chaos.py play on: one implementation's server, in a process of its own, and its workers.

The process that plays a scenario forks them all, so that an implementation is imported once. It hosts no server
itself: one that kills its own process, or its process group, is then seen from outside.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import multiprocessing
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest import mock

CONTEXT = multiprocessing.get_context("fork")
ROOTS = {"torch": "torch.distributed.elastic.timer", "unhang": "unhang"}
# A worker that is not dead so many seconds after its deadline counts as never killed.
LIMIT = 5.0
# Seconds behind its deadline at which a kill is late, whatever turns the server's loop takes.
IN_TIME = 2.0
# Seconds for everything that has to happen before a fault can be provoked.
SETUP = 15.0
# Seconds that a worker hangs: longer than any scenario looks, and it ends if nobody ends it.
HANG = 90
# Seconds for one turn of the server's loop, where the scenario is not about this time.
TURN = 0.1


class Verdict(enum.StrEnum):
    """What a row says of one implementation."""

    SURVIVED = "survived"
    FAILED = "failed"
    NOT_PROVOKED = "not provoked"  # the machine does not allow it
    BROKEN = "broken"  # the scenario itself went wrong, and says nothing
    NO_SUCH_THING = "no such thing"  # it cannot happen to these timers


@dataclass(frozen=True)
class Outcome:
    """A verdict and one short line of what happened."""

    verdict: Verdict
    line: str


def survived(line: str) -> Outcome:
    """The fault did no harm."""
    return Outcome(Verdict.SURVIVED, line)


def failed(line: str) -> Outcome:
    """The fault did harm."""
    return Outcome(Verdict.FAILED, line)


class BrokenScenarioError(Exception):
    """The fault could not be provoked as planned, so the scenario says nothing about the implementation."""


def wait_until(condition: Callable[[], bool], what: str, limit: float = SETUP) -> None:
    """Wait for a state that no descriptor tells of.

    Raises:
        BrokenScenarioError: it did not come within ``limit`` seconds.
    """
    give_up = time.monotonic() + limit
    while not condition():
        if time.monotonic() > give_up:
            raise BrokenScenarioError(f"waited {limit:g} s in vain for {what}")
        time.sleep(0.005)


class Child:
    """A forked process, and a pipe to it.

    Attributes:
        deadly: the signals by which its server would end it.
    """

    deadly: frozenset[int] = frozenset({signal.SIGKILL})

    def __init__(self, body: Callable[..., None], *args: Any) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_enter, args=(self.pipe, body, *args, theirs), daemon=True)
        self.process.start()
        self._pidfd = os.pidfd_open(self.pid)
        theirs.close()

    @property
    def pid(self) -> int:
        """The pid; nobody else's before `dead_within` has returned True."""
        return self.process.pid or 0

    def hear(self, limit: float = SETUP) -> Any:
        """The next thing it says.

        Raises:
            BrokenScenarioError: it died, or said nothing for ``limit`` seconds.
        """
        try:
            if self.pipe.poll(limit):
                return self.pipe.recv()
        except EOFError:
            pass
        raise BrokenScenarioError(f"{self.process.name} said nothing (exit code {self.process.exitcode})")

    def dead_within(self, seconds: float) -> bool:
        """Whether it has ended, or ends so soon."""
        # Not join(): that waits for the end of a pipe, which a worker may close, or hand on to a child of its own.
        select.select([self._pidfd], [], [], max(0.0, seconds))
        return self.process.exitcode is not None

    def killed_within(self, seconds: float) -> bool:
        """Whether its server has ended it, or does so soon.

        Raises:
            BrokenScenarioError: it ended in another way.
        """
        if not self.dead_within(seconds):
            return False
        if -(self.process.exitcode or 0) not in self.deadly:
            raise BrokenScenarioError(f"{self.process.name} ended by itself (exit code {self.process.exitcode})")
        return True

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.process.exitcode is None:
            os.kill(self.pid, number)

    def stop(self) -> None:
        """Stop it with SIGSTOP, and return when it is stopped."""
        self.send_signal(signal.SIGSTOP)
        self.await_stop()

    def await_stop(self) -> None:
        """Wait until it is stopped, or has ended."""
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def _enter(parents_end: Connection, body: Callable[..., None], *args: Any) -> None:
    # So that a child notices when its parent has gone.
    parents_end.close()
    body(*args)


class Server(Child):
    """The process of a timer server: alone in a process group, and harmless to everybody outside."""

    def __init__(self, stage: Stage, max_interval: float | None) -> None:
        self._withheld, report = CONTEXT.Pipe(duplex=False)
        self._count = stage.count
        super().__init__(_host, stage, max_interval, report)
        report.close()
        self.hear()

    def ask(self, question: Callable[..., Any], *args: Any) -> Any:
        """What ``question(server, *args)`` returns in the server's process; a function of a module.

        Raises:
            BrokenScenarioError: the process has ended.
        """
        try:
            self.pipe.send((question, args))
        except BrokenPipeError:
            raise BrokenScenarioError("the server died too early") from None
        return self.hear()

    def await_timers(self, count: int) -> None:
        """Wait until the server has so many timers."""
        wait_until(lambda: self.ask(self._count) == count, f"{count} timers at the server")

    def withheld(self) -> list[int]:
        """The pids outside the scenario that it tried to signal."""
        pids = []
        try:
            while self._withheld.poll(0):
                pids.append(self._withheld.recv())
        except EOFError:
            pass
        return pids

    def how_it_ended(self) -> str:
        """For a line of the table."""
        return f"the server's own process died ({self.process.exitcode})"


def count_timers(server: Any) -> int:
    """How many timers a server has."""
    return len(server._timers)


def _host(stage: Stage, max_interval: float | None, report: Connection, commands: Connection) -> None:
    os.setpgid(0, 0)
    _guard(report)
    server = stage.build(max_interval)
    server.start()
    commands.send("started")
    # Without whoever plays the scenario there is nothing to serve.
    with contextlib.suppress(EOFError):
        while True:
            question, args = commands.recv()
            commands.send(question(server, *args))


# In a server's process: the sessions that its signals may reach.
sessions: set[int] = set()


def _guard(report: Connection) -> None:
    """Let signals reach this scenario's processes alone; what they would have hit beyond them is reported."""
    kill, group = os.kill, os.getpgid(0)
    send = signal.pidfd_send_signal
    sessions.add(os.getsid(0))

    def guarded(pid: int, number: int) -> None:
        inside = pid in (0, -group) or (pid > 1 and os.getsid(pid) in sessions)
        if inside or number == 0:
            kill(pid, number)
        else:
            report.send(pid)

    def guarded_send(pidfd: int, number: int) -> None:
        pid = _pid_of(pidfd)
        if pid > 1 and os.getsid(pid) not in sessions:
            report.send(pid)
        else:
            send(pidfd, number)

    mock.patch.object(os, "kill", guarded).start()
    mock.patch.object(signal, "pidfd_send_signal", guarded_send).start()


def _pid_of(pidfd: int) -> int:
    """The pid; -1 when the process has exited."""
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pid:")))


class Worker(Child):
    """A process that uses a timer client, or is in the way of those that do.

    Its body is called with the stage, its arguments and its end of the pipe.

    Attributes:
        limit: as `Stage.limit`.
        in_time: as `Stage.in_time`.
    """

    def __init__(self, stage: Stage, body: Callable[..., None], *args: Any) -> None:
        self.limit = stage.limit
        self.in_time = stage.in_time
        self.deadly = stage.deadly
        super().__init__(body, stage, *args)

    def lateness(self, limit: float | None = None) -> float | None:
        """Seconds from the deadline that it said to its death; None: still alive after ``limit``."""
        deadline: float = self.hear()
        if not self.killed_within(deadline + (limit or self.limit) - time.monotonic()):
            return None
        return time.monotonic() - deadline


class Stage:
    """One implementation, ``torch`` or ``unhang``, and one of its servers, ``queue`` or ``FIFO``.

    Attributes:
        count: asked in the server's process how many timers it has.
        limit: seconds behind its deadline after which a worker counts as never killed.
        in_time: seconds behind its deadline after which a worker was killed late.
        deadly: the signals by which the server ends workers.
    """

    count: Callable[..., int] = staticmethod(count_timers)
    limit = LIMIT
    in_time = IN_TIME
    deadly = Child.deadly

    def __init__(self, implementation: str, kind: str) -> None:
        root = ROOTS[implementation]
        self.kind = kind
        self.api: Any = importlib.import_module(f"{root}.api")
        self.local: Any = importlib.import_module(f"{root}.local_timer")
        self.fifo: Any = importlib.import_module(f"{root}.file_based_local_timer")
        self.path = str(Path.cwd() / "timers.pipe")
        self.queue = CONTEXT.Queue()
        # A child whose pipe is closed takes it that the scenario is over.
        self._children: list[Child] = []

    def build(self, max_interval: float | None) -> Any:
        """A server that is not started; None: with the implementation's own ``max_interval``."""
        options = {} if max_interval is None else {"max_interval": max_interval}
        if self.kind == "FIFO":
            return self.fifo.FileTimerServer(self.path, "chaos", **options)
        return self.local.LocalTimerServer(self.queue, **options)

    def client(self) -> Any:
        """The implementation's client, for the process that calls."""
        if self.kind == "FIFO":
            return self.fifo.FileTimerClient(self.path)
        return self.local.LocalTimerClient(self.queue)

    def serve(self, max_interval: float | None = TURN) -> Server:
        """A server that runs."""
        server = Server(self, max_interval)
        self._children.append(server)
        return server

    def worker(self, body: Callable[..., None], *args: Any) -> Worker:
        """A worker that runs ``body(stage, *args, pipe)``."""
        worker = Worker(self, body, *args)
        self._children.append(worker)
        return worker

    def hung(self, after: float, body: Callable[..., None] | None = None) -> Worker:
        """A worker that says its deadline, arms a timer, and hangs."""
        return self.worker(body or arm_and_hang, after)


def arm_and_hang(stage: Stage, after: float, pipe: Connection) -> None:
    """A worker that is due after so many seconds, and hangs where other threads can run."""
    client = stage.client()
    pipe.send(time.monotonic() + after)
    with stage.api.expires(after=after, scope="step", client=client):
        time.sleep(HANG)


def idle(_stage: Stage, pipe: Connection) -> None:
    """A process that has no timer."""
    pipe.send("here")
    time.sleep(HANG)


def await_judgement(server: Server, control: Worker) -> str | None:
    """Wait until the server has killed ``control``, who is due last: then it has judged everybody else too.

    Returns why that did not come, or None. A server that has died has judged for the last time.
    """
    try:
        deadline: float = control.hear()
    except BrokenScenarioError:
        return server.how_it_ended() if server.dead_within(LIMIT) else "the last worker could not arm its timer"
    wait([control.process.sentinel, server.process.sentinel], max(0.0, deadline + LIMIT - time.monotonic()))
    # What a server does to itself comes right behind what it does to workers.
    if server.dead_within(2 * TURN):
        behind = " behind its kill" if control.process.exitcode == -signal.SIGKILL else ""
        return server.how_it_ended() + behind
    return None if control.killed_within(0) else f"a hung worker is alive {LIMIT:g} s after its deadline"


def how_late(lateness: float) -> str:
    """For a line of the table."""
    return f"killed {lateness * 1000:.1f} ms after its deadline"


def killed_in_time(worker: Worker, limit: float | None = None) -> Outcome:
    """Survived if a hung worker is dead within ``limit`` seconds of its deadline."""
    lateness = worker.lateness(limit)
    if lateness is None:
        return failed(f"the hung worker is alive {limit or worker.limit:g} s after its deadline")
    return survived(how_late(lateness))


def spared(innocents: list[Worker], trouble: str | None) -> Outcome:
    """Survived if no innocent worker was killed, and the server is well."""
    killed = sum(worker.killed_within(2 * TURN) for worker in innocents)
    if killed:
        return failed(f"innocent workers killed: {killed} of {len(innocents)}")
    if trouble is not None:
        return failed(trouble)
    return survived(f"innocent workers killed: 0 of {len(innocents)}")
