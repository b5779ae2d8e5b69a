"""What is seen of a worker in an incident: its timers, its evidence, what became of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unhang._platform.process import ProcessHandle
from unhang._watchdog.departures import Departure
from unhang._watchdog.escalations import Member
from unhang._watchdog.timers import Timers
from unhang._watchdog.watched import Expired, Watched
from unhang.report.model import Evidence, Step, Worker

_SECOND = 1e9


@dataclass(eq=False)
class Seen:
    """One worker in one incident.

    Attributes:
        watched: as the watch sees it.
        handle: the process, also when its connection is gone.
        timers: when it was looked at last.
        due: those that the watch has found to have expired last, or to be near, the earliest first.
        member: its escalation, if it has expired.
        evidence: what was found.
        gathering: how many gatherings are under way.
        again: whether it is to be looked into less gently behind that.
        in_report: whether all that was gathered is in a report, or will be when it is made.
        observed: whether it is never to be killed.
        expired: whether one of its timers has expired.
        departure: when it has left.
        until: when its evidence has to be there, monotonic seconds, if that is earlier than for all of the incident.
    """

    watched: Watched
    handle: ProcessHandle
    timers: Timers
    due: Sequence[Expired] = ()
    member: Member | None = None
    evidence: Evidence | None = None
    gathering: int = 0
    again: bool = False
    in_report: bool = False
    until: float = math.inf
    observed: bool = False
    expired: bool = False
    departure: Departure | None = None

    def has_stacks(self) -> bool:
        """Whether there is nothing more to be found."""
        return self.evidence is not None and bool(self.evidence.threads)

    def worker(self, began: float) -> Worker:
        """As a report has it."""
        identity = self.watched.origin.identity
        member = self.member
        outcome = "observed" if self.observed and self.expired else ""
        if member is not None:
            outcome = member.outcome or "pending"
        return Worker(
            pid=self.watched.pid,
            rank=identity.rank,
            local_rank=identity.local_rank,
            host=identity.host,
            attempt=identity.attempt,
            expired=self.expired,
            sequence=self.timers.sequence,
            idle=max(0.0, (self.timers.at - self.timers.quiet_since) / _SECOND),
            armed=self.timers.total,
            blocks=self.timers.blocks(began),
            finished=self.timers.left_blocks(began),
            evidence=self.evidence,
            steps=tuple(Step(at=at - began, what=what) for at, what in (member.steps if member else ())),
            outcome=outcome,
            exit="" if self.departure is None else self.departure.exit,
        )
