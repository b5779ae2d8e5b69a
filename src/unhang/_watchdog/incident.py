"""One hang: the workers of a job that expire together, those that are quiet beside them, and what is found in them."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from signal import Signals

from unhang._core.escalation import Stage
from unhang._watchdog.departures import Departure
from unhang._watchdog.seen import Seen
from unhang._watchdog.watched import Watched
from unhang.report.model import Departed, Worker

# Seconds behind the last expiry of an incident in which another one of the same job joins it.
JOIN = 10.0
# Seconds behind its first expiry, and workers, beyond which nobody joins an incident: it would never be over.
_LONGEST = 60.0
_MOST_WORKERS = 256


Job = tuple[str, int | None]


def job_of(worker: Watched) -> Job:
    """What a worker has in common with those that it is compared with."""
    identity = worker.origin.identity
    return identity.job, identity.attempt


@dataclass(frozen=True)
class Findings:
    """What is known of an incident at one moment, to be judged and reported by another thread."""

    id: str
    time: str
    job: str
    began: float
    workers: tuple[Worker, ...]
    departed: tuple[Departed, ...]
    progressing: int
    complete: bool
    first: bool  # nothing was reported of it before
    left_out: int  # workers that hang too, as it seems, and are not in it
    next_step: str  # what is done to those that wait for it


@dataclass(eq=False)
class Incident:
    """An incident.

    Attributes:
        job: the id of the job, and which start of it this is.
        began: the first expiry, monotonic seconds.
        last: the last expiry.
        seen: the workers by `Watched.number`.
        until: when the evidence has to be there, monotonic seconds.
        waited: whether that is over, for the evidence that is still being gathered.
        hold_until: no report before this instant: others are about to expire.
        others: who is to be looked into beside the first.
        progressing: how many others of the job there are.
        left_out: how many more are as quiet as these.
        departures: who had left before.
        reported: whether there has been a report.
        reporting: whether one is being made.
        is_stale: whether something has happened since that report was begun.
    """

    job: Job
    began: float
    last: float
    until: float
    waited: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    seen: dict[int, Seen] = field(default_factory=dict)
    hold_until: float = -math.inf
    others: list[Seen] = field(default_factory=list)
    progressing: int = 0
    left_out: int = 0
    departures: list[Departure] = field(default_factory=list)
    reported: bool = False
    reporting: bool = False
    is_stale: bool = True
    report_at: float = math.inf  # when it is to be reported again

    def is_gathering(self) -> bool:
        """Whether evidence is still being gathered."""
        return any(seen.gathering for seen in self.seen.values())

    def is_settled(self) -> bool:
        """Whether nothing more will be done about any of its workers."""
        return all(seen.member is None or seen.member.is_settled for seen in self.seen.values())

    def takes(self, worker: Watched, now: float) -> bool:
        """Whether another expiry of its job joins it: not one of a rank that was started again."""
        if now - self.last >= JOIN or now - self.began >= _LONGEST or len(self.seen) >= _MOST_WORKERS:
            return False
        rank = worker.origin.identity.rank
        others = (seen.watched for number, seen in self.seen.items() if number != worker.number)
        return rank is None or all(other.origin.identity.rank != rank for other in others)

    def is_over(self, now: float) -> bool:
        """Whether nobody joins it any more, and nothing more is to be told."""
        return now >= self.last + JOIN and self.is_settled() and not self.reporting and not self.is_stale

    def due_at(self) -> float:
        """When it wants to be looked at again, monotonic seconds."""
        if self.reporting:
            return math.inf
        at = self.report_at
        if self.is_gathering() and not self.waited:
            at = min(at, self.until)
        if self.is_settled() and not self.is_stale:
            at = min(at, self.last + JOIN)
        return at

    def has_waiting(self) -> bool:
        """Whether a worker is spared until this is reported."""
        members = (seen.member for seen in self.seen.values())
        return any(member is not None and member.stage is Stage.EVIDENCE for member in members)

    def findings(self) -> Findings:
        """All of it, frozen."""
        for seen in self.seen.values():
            seen.in_report = not seen.gathering
        workers = [seen.worker(self.began) for seen in self.seen.values()]
        return Findings(
            id=self.id,
            time=self.time,
            job=self.job[0],
            began=self.began,
            workers=tuple(workers),
            departed=tuple(departure.departed(self.began) for departure in self.departures),
            progressing=self.progressing,
            complete=self.is_settled() and not self.is_gathering(),
            first=not self.reported,
            left_out=self.left_out,
            next_step=self._next_step(),
        )

    def _next_step(self) -> str:
        members = [seen.member for seen in self.seen.values() if seen.member is not None]
        policy = next((member.policy for member in members if member.stage is Stage.EVIDENCE), None)
        if policy is None:
            return ""
        whom = "it and all that it has started" if policy.tree else ""
        steps = (
            f"{Signals(policy.signal).name} now, SIGKILL {policy.grace:g} s later" if policy.signal else "SIGKILL now"
        )
        return f"{steps}, for {whom}" if whom else steps
