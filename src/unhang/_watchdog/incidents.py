"""All incidents of a server: who belongs to which, when its evidence is complete, and when it is reported.

It belongs to the server's loop. Evidence is gathered, and reports are made, by helper threads. A report is made as soon
as all evidence of an incident is there, before anybody is killed for it, and again when all is over.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence

from unhang._core.clock import Clock
from unhang._platform.look import Look
from unhang._verdict import debuggers
from unhang._watchdog.departures import Departure, Departures
from unhang._watchdog.escalations import Member
from unhang._watchdog.evidence import Options, Subject, gather
from unhang._watchdog.helpers import Helpers
from unhang._watchdog.incident import Findings, Incident, job_of
from unhang._watchdog.seen import Seen
from unhang._watchdog.timers import Timers
from unhang._watchdog.watched import Expired, Watched
from unhang.report.model import Evidence, HangClass

# Seconds before which a worker whose stacks cannot be had gently is waited for, if it is about to expire itself.
_HOLD = 0.2
# Seconds between two reports of one incident.
_PAUSE = 0.5
# Workers in one incident that have not expired, and how many of them are looked into.
_MOST_QUIET = 64
_MOST_GENTLE = 16
# Seconds for which evidence is that of the moment, and a look was taken when the deadline came near.
_FRESH = 0.5
_NEAR = 3.0
# A worker is quiet when it has done nothing for this part of the time that the expired block has been running.
_QUIET = 0.5
# Seconds that evidence takes at least, and those before the signals at which no more is begun in a crowd.
_LEAST = 0.02
_BEFORE = 0.1
_NO_TIME = "no time was left for it: too many workers expired at once"


class Incidents:
    """The incidents.

    Args:
        helpers: the threads that gather evidence.
        writers: those that make reports; a disk that hangs must not keep the others from their work.
        clock: monotonic time.
        workers: whom the server watches now.
        departures: who has left.
        report: makes a report, in a helper thread.
        gathered: told, in the loop, of a member whose incident has been reported, or whose evidence nobody wants.
        evidence: seconds that evidence may take; 0: none is gathered.
        options: what is gathered.
        users: whose processes may be signalled, besides this user's.
        stderr_of: what tells the end of a worker's standard error, if the caller has it.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        helpers: Helpers,
        writers: Helpers,
        clock: Clock,
        workers: Callable[[], Iterable[Watched]],
        departures: Departures,
        report: Callable[[Findings], None],
        gathered: Callable[[Member], None],
        *,
        evidence: float,
        options: Options,
        users: frozenset[int],
        stderr_of: Callable[[Watched], Callable[[], str] | None],
    ) -> None:
        self._helpers = helpers
        self._writers = writers
        self._clock = clock
        self._workers = workers
        self._departures = departures
        self._report = report
        self._gathered = gathered
        self._evidence = evidence
        self._options = options
        self._stderr_of = stderr_of
        self._users = users
        self._incidents: list[Incident] = []

    def expired(self, member: Member) -> None:
        """A worker is about to be ended: find out about it and those beside it, then call ``gathered``."""
        if self._evidence <= 0:
            # Nothing stands between the deadline and the signal.
            self._gathered(member)
        incident = self._incident_of(member.watched, member.timers)
        seen = self._see(incident, member.watched, member.timers)
        seen.member, seen.expired, seen.until = member, True, math.inf
        self._look_into(incident, seen, gentle=False)
        self._look_into_others(incident)
        self._check(incident)

    def noticed(self, worker: Watched, timers: list[Expired], *, expired: bool) -> None:
        """A worker is about to expire, or has and is only observed: find out about it without disturbing it."""
        if worker.handle is None:
            return
        incident = self._incident_of(worker, timers)
        seen = self._see(incident, worker, timers)
        seen.observed, seen.expired = expired, seen.expired or expired
        self._look_into(incident, seen, gentle=True)
        self._look_into_others(incident)
        self._check(incident)

    def _incident_of(self, worker: Watched, timers: list[Expired]) -> Incident:
        """The incident that this worker joins, or begins."""
        now = self._clock.now()
        job = job_of(worker)
        for incident in self._incidents:
            if incident.job == job and incident.takes(worker, now):
                incident.last = now
                incident.until = now + self._evidence
                incident.is_stale = True
                return incident
        incident = Incident(job, now, now, now + self._evidence, departures=self._departures.of(job[0]))
        self._incidents.append(incident)
        self._find_others(incident, worker, timers[0].running)
        return incident

    def _find_others(self, incident: Incident, worker: Watched, running: float) -> None:
        """The other workers of the job: those that are as quiet as the one that hangs are part of it.

        Workers that say nothing of a job or a rank have nothing to do with each other, as far as is known.
        """
        now = round(incident.began * 1e9)
        others = [
            other
            for other in self._workers()
            if other.pid != worker.pid and other.handle is not None and job_of(other) == incident.job
            if other.origin.identity.job or other.origin.identity.rank is not None
        ]
        others.sort(key=lambda other: other.changed_at)
        # `changed_at` is a beat late at most, and whoever was seen to change since then makes progress.
        since = now - round(running * _QUIET * 1e9)
        quiet = [other for other in others if other.changed_at - 1_000_000_000 <= since]
        incident.left_out = max(0, len(quiet) - _MOST_QUIET)
        for other in quiet[:_MOST_QUIET]:
            seen = self._see(incident, other)
            if seen.timers.quiet_since > since:
                del incident.seen[other.number]
        incident.progressing = len(others) - len(incident.seen) - incident.left_out
        incident.others = list(incident.seen.values())[:_MOST_GENTLE]

    def _look_into_others(self, incident: Incident) -> None:
        """Behind the one that has expired: its evidence must not wait for theirs."""
        others, incident.others = incident.others, []
        for seen in others:
            if not seen.expired:
                self._look_into(incident, seen, gentle=True)

    def _see(self, incident: Incident, worker: Watched, due: Sequence[Expired] = ()) -> Seen:
        """Take the worker's timers down as they are now."""
        seen = incident.seen.get(worker.number)
        due = due or (() if seen is None else seen.due)
        timers = Timers.of(worker, round(self._clock.now() * 1e9), due)
        if seen is None:
            assert worker.handle is not None  # noqa: S101 - for the type checker: whoever has none is not seen
            seen = incident.seen[worker.number] = Seen(worker, worker.handle.copy(), timers)
        seen.timers, seen.due = timers, due
        return seen

    def _look_into(self, incident: Incident, seen: Seen, *, gentle: bool) -> None:
        """Have evidence gathered, if there is not enough already."""
        if self._evidence <= 0 or self._has_enough(incident, seen):
            return
        if seen.gathering:
            # Two at once would only take twice as long: what is missing then is looked for behind the first.
            seen.again = not gentle
            return
        subject = self.subject(seen)
        began, until = incident.began, incident.until
        seen.gathering += 1
        seen.in_report = incident.waited = False

        def task() -> Evidence:
            budget = max(0.0, min(until, seen.until) - self._clock.now())
            if budget < _LEAST and seen.until < math.inf:
                return Evidence(without=(_NO_TIME,))
            return gather(subject, gentle=gentle, budget=budget, began=began, options=self._options)

        self._helpers.submit(task, functools.partial(self._found, incident, seen))

    def hurry(self, members: Iterable[Member]) -> None:
        """These are so many that their evidence has to be there earlier."""
        untils = {id(member): member.until for member in members}
        if not untils:
            return
        for incident in self._incidents:
            for seen in incident.seen.values():
                until = untils.get(id(seen.member), math.inf)
                seen.until = min(seen.until, until - _BEFORE)
                incident.until = min(incident.until, until)

    def _has_enough(self, incident: Incident, seen: Seen) -> bool:
        """Whether what was found is all that there is to find, and of this moment."""
        found = seen.evidence
        if found is None or not found.threads or found.hang is HangClass.UNKNOWN:
            return False
        return self._clock.now() - incident.began - found.at < _FRESH

    def subject(self, seen: Seen) -> Subject:
        """What evidence about a worker is gathered from."""
        origin = seen.watched.origin
        armed = seen.timers.armed
        block = seen.due[0] if seen.due else (armed[-1].seen if armed else None)
        return Subject(
            handle=seen.handle,
            scope="" if block is None else block.scope,
            thread=0 if block is None else block.thread,
            user=origin.user,
            earlier=self._recent(seen.watched.earlier),
            stack_signal=origin.stack_signal if origin.stack_file is not None else 0,
            stack_file=-1 if origin.stack_file is None else origin.stack_file.fd,
            stderr=self._stderr_of(seen.watched),
            also=self._users,
        )

    def _recent(self, earlier: Look | None) -> Look | None:
        """A look that was taken when the deadline came near; an older one was for another block."""
        return earlier if earlier is not None and self._clock.now() - earlier.instant < _NEAR else None

    def _found(self, incident: Incident, seen: Seen, evidence: Evidence | None) -> None:
        seen.gathering -= 1
        if evidence is not None and (evidence.threads or not seen.has_stacks()):
            seen.evidence = evidence
        incident.is_stale = True
        if seen.again:
            seen.again = False
            self._look_into(incident, seen, gentle=False)
        self._check(incident)

    def _check(self, incident: Incident, *, due: bool = False) -> None:
        """Report the incident, if there is news, and its evidence is complete or its time is over.

        Args:
            incident: which.
            due: whether it was put off before; nobody waits for a report that only says what was done since.
        """
        now = self._clock.now()
        if incident.reporting or not incident.is_stale or (incident.is_gathering() and now < incident.until):
            return
        if self._is_about_to_grow(incident, now):
            incident.report_at = incident.hold_until
            return
        if incident.reported and not due and not incident.has_waiting():
            self._check_later(incident)
            return
        incident.reporting, incident.is_stale, incident.report_at = True, False, math.inf
        findings = incident.findings()
        self._writers.submit(functools.partial(self._report, findings), functools.partial(self._reported, incident))

    def _is_about_to_grow(self, incident: Incident, now: float) -> bool:
        """Whether a worker whose stacks could not be had gently expires in a moment, and can then be asked for them."""
        if incident.reported or self._evidence <= 0:
            return False
        if incident.hold_until < 0:
            incident.hold_until = incident.began + min(_HOLD, self._evidence)
        if now >= incident.hold_until:
            return False
        latest = incident.hold_until * 1e9
        return any(
            not seen.expired and not seen.has_stacks() and any(block.deadline < latest for block in seen.timers.armed)
            for seen in incident.seen.values()
        )

    def _reported(self, incident: Incident, _: None) -> None:
        incident.reporting, incident.reported = False, True
        for seen in list(incident.seen.values()):
            if seen.member is not None and seen.in_report:
                self._gathered(seen.member)
        self._check_later(incident)

    def changed(self, worker: Watched) -> None:
        """Something was done about a worker, or it is gone."""
        for incident in self._incidents:
            if worker.number in incident.seen:
                incident.is_stale = True
                self._check_later(incident)

    def _check_later(self, incident: Incident) -> None:
        if incident.is_stale:
            pause = 0.0 if incident.is_settled() else _PAUSE
            incident.report_at = min(incident.report_at, self._clock.now() + pause)

    def left(self, worker: Watched, departure: Departure | None) -> None:
        """A worker has left."""
        for incident in self._incidents:
            seen = incident.seen.get(worker.number)
            if seen is not None:
                seen.departure = departure
                self.changed(worker)

    def knows(self, job: str) -> bool:
        """Whether a job has an incident at this moment."""
        return any(incident.job[0] == job for incident in self._incidents)

    def hang_of(self, worker: Watched) -> str:
        """The class of its hang, if that was found out."""
        evidence = self._evidence_of(worker)
        return "" if evidence is None else str(evidence.hang)

    def is_at_a_prompt(self, worker: Watched) -> bool:
        """Whether a debugger within the worker holds it, as far as its stacks are known."""
        evidence = self._evidence_of(worker)
        return evidence is not None and debuggers.hold(evidence.threads)

    def _evidence_of(self, worker: Watched) -> Evidence | None:
        seen = next((one.seen[worker.number] for one in reversed(self._incidents) if worker.number in one.seen), None)
        return None if seen is None else seen.evidence

    def wait_time(self) -> float:
        """Seconds to wait, at most, before the next `turn`."""
        next_one = min((incident.due_at() for incident in self._incidents), default=math.inf)
        return max(0.0, next_one - self._clock.now())

    def turn(self) -> None:
        """Behind each turn of the watch: report what is due, and close what is over."""
        now = self._clock.now()
        for incident in list(self._incidents):
            if incident.due_at() > now:
                continue
            if incident.is_over(now):
                self._incidents.remove(incident)
                continue
            incident.report_at = math.inf
            incident.waited = incident.waited or now >= incident.until
            self._check(incident, due=True)

    def finish(self) -> bool:
        """Report what has not been reported yet; False when there is nothing more to wait for."""
        for incident in self._incidents:
            self._check(incident, due=True)
        return any(incident.reporting or incident.is_stale for incident in self._incidents)
