"""The report of a command that has taken longer than it may: all of its processes, whether they have timers or not.

It is made in a thread of its own, beside the server's loop, which watches workers meanwhile.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from msgspec import structs

from unhang._core import real_time as time
from unhang._platform.look import name_of
from unhang._platform.process import ProcessHandle
from unhang._verdict import command as verdicts
from unhang._watchdog.evidence import Options, Subject, gather
from unhang._watchdog.helpers import Helpers
from unhang._watchdog.seen import Seen
from unhang.report import words
from unhang.report.frames import telling_thread, user_frame
from unhang.report.headline import how
from unhang.report.model import Evidence, Report, Step, Verdict, Worker

logger = logging.getLogger("unhang.watchdog")

MOST_PROCESSES = 64
# Processes that are looked at at once.
_AT_ONCE = 8
_LONGEST_COMMAND = 500


@dataclass(frozen=True)
class Member:
    """A process of the command. The handle is closed by whoever made it."""

    handle: ProcessHandle
    parent: int


@dataclass(frozen=True)
class Overrun:
    """A command that has used up its budget.

    Attributes:
        command: its words.
        budget: the seconds that it was given.
        members: its processes, COMMAND itself first.
        is_observed: whether nobody is ended for it, and so nobody may be disturbed.
        next_step: what is done when the report is there.
    """

    command: Sequence[str]
    budget: float
    members: Sequence[Member]
    is_observed: bool
    next_step: str


@dataclass(frozen=True)
class Known:
    """A process that is a worker, as the server's loop has it."""

    seen: Seen
    subject: Subject


class Publisher(Protocol):
    """Keeps, prints and hands out a report."""

    def publish(self, report: Report, *, next_step: str = "", is_news: bool = True) -> None:
        """Keep a report; print it, with what is done next, if it is news."""


class CommandReport:
    """One such report. `finish` may follow, when the command has ended.

    Args:
        overrun: what it is about.
        workers: who is a worker, by pid; called in the thread, and may take half a second.
        publisher: what becomes of it.
        evidence: seconds that evidence may take.
        options: what is gathered.
        stderr_of: the end of what a process wrote to its standard error, if the caller has that.
        users: whose processes may be signalled, besides this user's.
    """

    def __init__(
        self,
        overrun: Overrun,
        workers: Callable[[], Mapping[int, Known]],
        publisher: Publisher,
        *,
        evidence: float,
        options: Options,
        stderr_of: Callable[[int], str] | None,
        users: frozenset[int],
    ) -> None:
        self._overrun = overrun
        self._workers = workers
        self._publisher = publisher
        self._evidence = evidence
        self._options = options
        self._stderr_of = stderr_of
        self._users = users
        self._began = time.monotonic()
        self._is_cancelled = False
        self._report: Report | None = None

    def start(self, done: Callable[[], None]) -> None:
        """Begin; ``done`` is called in the thread when the report is there, or will never be."""

        def run() -> None:
            try:
                self._make()
            except Exception:
                logger.exception("Error reporting %s", self._overrun.command[0])
            finally:
                done()

        threading.Thread(target=run, name="unhang-command-report", daemon=True).start()

    def cancel(self) -> None:
        """The command has ended by itself: no report, if it has not been made yet."""
        self._is_cancelled = True

    def finish(self, outcome: str, steps: Sequence[tuple[float, str]], exit_: str) -> None:
        """Complete the report that is kept.

        Args:
            outcome: what became of all that were in it.
            steps: what was done to them: monotonic instants, and words.
            exit_: how the command itself ended, in words.
        """
        if self._report is None:
            return
        done = tuple(Step(at=at - self._began, what=what) for at, what in steps)
        root = self._overrun.members[0].handle.pid
        workers = tuple(
            structs.replace(one, outcome=outcome, steps=done, exit=exit_ if one.pid == root else one.exit)
            for one in self._report.workers
        )
        self._publisher.publish(structs.replace(self._report, workers=workers, complete=True), is_news=False)

    def _make(self) -> None:
        members = self._overrun.members[:MOST_PROCESSES]
        known = self._workers()
        found = self._gather({one.handle.pid: self._subject(one, known.get(one.handle.pid)) for one in members})
        if self._is_cancelled:
            return
        workers = [self._worker(one, known.get(one.handle.pid), found.get(one.handle.pid)) for one in members]
        job = next((each.seen.watched.origin.identity.job for each in known.values()), "")
        self._report = self._composed(job, workers, {one.handle.pid: one.parent for one in members})
        self._publisher.publish(self._report, next_step=self._overrun.next_step)

    def _gather(self, subjects: Mapping[int, Subject]) -> dict[int, Evidence]:
        """Look at all of them, some at once; what is not there in time is left out."""
        until = self._began + self._evidence
        ready = threading.Event()
        helpers = Helpers(_AT_ONCE, ready.set)
        found: dict[int, Evidence] = {}

        def look(subject: Subject) -> Evidence | None:
            left = until - time.monotonic()
            if left <= 0:
                return None
            gentle = self._overrun.is_observed
            return gather(subject, gentle=gentle, budget=left, began=self._began, options=self._options)

        def put(pid: int, evidence: Evidence | None) -> None:
            if evidence is not None:
                found[pid] = evidence

        for pid, subject in subjects.items():
            helpers.submit(functools.partial(look, subject), functools.partial(put, pid))
        while len(found) < len(subjects) and (left := until - time.monotonic()) > 0:
            ready.wait(left)
            ready.clear()
            helpers.deliver()
        helpers.close()
        return found

    def _subject(self, member: Member, known: Known | None) -> Subject:
        if known is not None:
            return known.subject
        seen = member.handle.facts()
        stderr = None if self._stderr_of is None else functools.partial(self._stderr_of, member.handle.pid)
        user = None if seen is None else seen.user
        return Subject(handle=member.handle, user=user, stderr=stderr, also=self._users)

    def _worker(self, member: Member, known: Known | None, evidence: Evidence | None) -> Worker:
        worker = Worker(pid=member.handle.pid, timers=False) if known is None else known.seen.worker(self._began)
        outcome = "observed" if self._overrun.is_observed else "pending"
        if evidence is not None and not evidence.process.command:  # of one whose first thread has ended, say
            process = structs.replace(evidence.process, command=f"[{name_of(worker.pid)}]")
            evidence = structs.replace(evidence, process=process)
        return structs.replace(worker, evidence=evidence, outcome=outcome)

    def _composed(self, job: str, workers: Sequence[Worker], parents: Mapping[int, int]) -> Report:
        from unhang import __version__

        left_out = len(self._overrun.members) - len(workers)
        verdict = verdicts.judge(workers, parents, is_whole=not left_out)
        ordered = _in_order(workers, verdict)
        return Report(
            id=secrets.token_hex(4),
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            host=socket.gethostname(),
            job=job,
            kind="command",
            command=" ".join(self._overrun.command)[:_LONGEST_COMMAND],
            budget=self._overrun.budget,
            headline=self._headline(ordered, verdict),
            verdict=verdict,
            workers=ordered,
            omitted=(f"{words.number(left_out, 'more process', 'more processes')}",) if left_out else (),
            complete=self._overrun.is_observed,
            watchdog=os.getpid(),
            version=__version__,
        )

    def _headline(self, ordered: Sequence[Worker], verdict: Verdict) -> str:
        line = f"{self._overrun.command[0]} still runs after {words.seconds(self._overrun.budget)}"
        first = ordered[0]
        if first.evidence is not None:
            line += f": {words.command(first.evidence.process.command)} (pid {first.pid}), {how(first)}"
        others = len(ordered) - 1 - len(verdict.victims)
        return words.clean(line + (f"; and {others} more" if others > 0 else ""), 240)


def _in_order(workers: Sequence[Worker], verdict: Verdict) -> tuple[Worker, ...]:
    """The culprit first; then those whose own lines are known; those that wait for a child last."""

    def place(worker: Worker) -> tuple[bool, bool, bool]:
        thread = telling_thread(worker.evidence)
        has_line = thread is not None and user_frame(thread) is not None
        return worker.pid not in verdict.culprits, worker.pid in verdict.victims, not has_line

    return tuple(sorted(workers, key=place))
