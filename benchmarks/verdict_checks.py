"""Holds what a report says against what is right."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from unhang.report.frames import telling_thread, user_frame
from unhang.report.model import Evidence, HangClass, Report, Sure, Worker
from verdict_director import Run
from verdict_stage import lines_marked
from verdict_table import Case

# What may become of a worker that hangs by itself, and of one of a job: when its peers are killed, its call fails.
_ENDED = {False: ("killed",), True: ("killed", "gone", "spared")}


class Blame(enum.StrEnum):
    """What became of the question who is to blame."""

    RIGHT = "right"
    CANNOT_TELL = "can't tell"  # though somebody is to blame
    WRONG = "WRONG"


@dataclass
class Row:
    """What the report of one case said, and whether that is right.

    Attributes:
        said: the class of the worker that hangs.
        line: the line that the report points at there, as ``file:line``.
        hang_ok: whether the classes of all workers are right.
        line_ok: whether the lines of all workers are.
        stacks_ok: whether there are stacks of all of them.
        culprits: who is blamed.
        sure: how sure that is.
        blame: whether that is right.
        stacks_from: what took the stacks.
        signal_ms: from the deadline to the first signal.
        headline: of the report.
        faults: what is wrong, a phrase each.
        seconds: that the run took.
    """

    case: Case
    said: str = ""
    line: str = ""
    hang_ok: bool = True
    line_ok: bool = True
    stacks_ok: bool = True
    culprits: str = ""
    sure: str = ""
    blame: Blame = Blame.WRONG
    stacks_from: str = ""
    signal_ms: float | None = None
    headline: str = ""
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether nothing is wrong; not to know the culprit is not wrong."""
        return self.hang_ok and self.line_ok and self.stacks_ok and self.blame is not Blame.WRONG and not self.faults

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        answers = {name: value for name, value in vars(self).items() if name != "case"}
        expected = {"hang": self.case.hang, "blame": expected_blame(self.case)}
        return {"case": self.case.name, "what": self.case.what, "expected": expected, "right": self.right, **answers}


def judged(case: Case, run: Run) -> Row:
    """What the run's report says, and whether it is right."""
    row = Row(case, seconds=round(run.seconds, 2))
    if run.trouble:
        row.faults.append(run.trouble)
    if not run.reports:
        row.hang_ok = row.line_ok = row.stacks_ok = False
        row.faults.append(f"no report; it printed: {run.log.strip()[-300:]}")
        return row
    if len(run.reports) > 1:
        row.faults.append(f"{len(run.reports)} reports of one incident")
    report = run.reports[0]
    row.headline = report.headline
    if not report.complete:
        row.faults.append("the report was not completed")
    row.signal_ms = _first_signal(report)
    _judge_workers(case, report, row)
    _judge_blame(case, report, row)
    return row


def _first_signal(report: Report) -> float | None:
    """Milliseconds from the first deadline to the first signal."""
    steps = [step.at for worker in report.workers for step in worker.steps if step.what.startswith("SIG")]
    return min(steps) * 1e3 if steps else None


def _judge_workers(case: Case, report: Report, row: Row) -> None:
    hangs = lines_marked(case.program, "HANGS HERE")
    waits = lines_marked(case.program, "WAITS HERE")
    culprits = _who_hangs(case, report)
    for worker in culprits:
        # Without a look into it, nobody can tell which thread keeps another one from going on.
        lines = hangs | waits if case.sealed else hangs
        _judge_worker(worker, case, case.hang, lines or waits, row)
    others = [worker for worker in report.workers if worker not in culprits] if case.ranks else []
    for worker in others:
        _judge_worker(worker, case, case.waits, waits, row)
    _judge_presence(case, report, row)
    shown = (culprits or others)[:1]
    row.said = "".join(_hang(worker) for worker in shown)
    row.line = "".join(_line(worker.evidence) for worker in shown)
    row.stacks_from = "+".join(sorted({_evidence(worker).stacks_from or "none" for worker in culprits + others}))


def _who_hangs(case: Case, report: Report) -> list[Worker]:
    """The workers that hang by themselves, and do not wait for those that do."""
    if not case.ranks:
        return [worker for worker in report.workers if worker.expired]
    ranks = {rank for blamed in case.blame for rank in blamed} or set(range(case.ranks))
    return [worker for worker in report.workers if worker.rank in ranks]


def _judge_presence(case: Case, report: Report, row: Row) -> None:
    """Whether the report has the workers that it must have."""
    expired = [worker for worker in report.workers if worker.expired]
    if not expired:
        row.faults.append("nobody has expired")
    alive = [
        f"{_name(worker)} ({worker.outcome})" for worker in expired if worker.outcome not in _ENDED[bool(case.ranks)]
    ]
    if alive:
        row.faults.append(f"not said to be killed: {', '.join(alive)}")
    ranks = list(_ranks(report).values())
    if case.ranks and sorted(ranks, key=str) != list(range(case.ranks)):
        row.faults.append(f"the ranks are {ranks}")
    if not case.ranks and len(expired) > 1:
        row.faults.append(f"{len(expired)} workers have expired")
    if case.scope and {block.scope for worker in expired for block in worker.blocks if block.expired} != {case.scope}:
        row.faults.append(f"not {case.scope!r} has expired")


def _judge_worker(worker: Worker, case: Case, hangs: tuple[HangClass, ...], lines: frozenset[int], row: Row) -> None:
    evidence = _evidence(worker)
    may_be = (*hangs, HangClass.UNKNOWN) if case.sealed else hangs
    if evidence.hang not in may_be:
        row.hang_ok = False
        row.faults.append(f"{_name(worker)} is said to be in: {evidence.hang} ({', '.join(evidence.facts)})")
    if not any(thread.frames for thread in evidence.threads):
        row.stacks_ok = False
        row.faults.append(f"no stacks of {_name(worker)}: {'; '.join(evidence.without) or 'nobody looked'}")
    if _line(evidence) not in {f"{case.program}.py:{line}" for line in lines}:
        row.line_ok = False
        row.faults.append(f"{_name(worker)} is said to be at {_line(evidence)}")


def _name(worker: Worker) -> str:
    return f"pid {worker.pid}" if worker.rank is None else f"rank {worker.rank}"


def _evidence(worker: Worker) -> Evidence:
    return worker.evidence or Evidence()


def _hang(worker: Worker) -> HangClass:
    return _evidence(worker).hang


def _line(evidence: Evidence | None) -> str:
    """The line that a reader is shown first."""
    thread = telling_thread(evidence)
    frame = user_frame(thread) if thread else None
    return f"{PurePath(frame.file).name}:{frame.line}" if frame else "-"


def _judge_blame(case: Case, report: Report, row: Row) -> None:
    names = _names(case, report)
    verdict = report.verdict
    row.sure = str(verdict.sure)
    said = frozenset(names(pid) for pid in verdict.culprits) if verdict.sure is not Sure.CANNOT_TELL else frozenset()
    row.culprits = _listed(said)
    right = [frozenset(f"{rank}" for rank in blamed) for blamed in case.blame] if case.ranks else [frozenset({"it"})]
    if said in right or (not said and not right):
        row.blame = Blame.RIGHT
    elif not said:
        row.blame = Blame.CANNOT_TELL
    else:
        row.faults.append(f"blamed: {verdict.why}")


def _names(case: Case, report: Report) -> Callable[[int], str]:
    """What a pid is called: the rank, or ``it`` for the only worker that hangs."""
    if case.ranks:
        ranks = _ranks(report)
        return lambda pid: str(ranks.get(pid, f"pid {pid}"))
    expired = {worker.pid for worker in report.workers if worker.expired}
    return lambda pid: "it" if pid in expired else f"pid {pid}"


def _ranks(report: Report) -> dict[int, int | None]:
    """The rank of each pid, of those too that had left before."""
    departed = {left.pid: left.rank for left in report.departed}
    return departed | {worker.pid: worker.rank for worker in report.workers}


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "can't tell"


def expected_blame(case: Case) -> str:
    """Who is to blame, for a reader."""
    if not case.ranks:
        return "it"
    return " or ".join(_listed(frozenset(map(str, blamed))) for blamed in case.blame) or "can't tell"
