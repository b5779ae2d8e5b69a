"""What a server does about workers: the hands of its watch, and what its escalations and incidents have in common.

It belongs to the server's loop.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from unhang._core import real_time as time
from unhang._core.clock import Clock, SystemClock
from unhang._core.escalation import Event, Policy
from unhang._core.page import parse_ending
from unhang._platform.freezer import is_frozen
from unhang._platform.look import Look, look
from unhang._platform.process import ProcessHandle, has_another_clock
from unhang._platform.program import is_another
from unhang._platform.turns import turns
from unhang._platform.waiter import Waiter
from unhang._watchdog import kill
from unhang._watchdog.asked import Asked
from unhang._watchdog.command_report import CommandReport, Known, Overrun
from unhang._watchdog.departures import Departure, Departures
from unhang._watchdog.escalations import Escalations, Member, TreeEnding
from unhang._watchdog.evidence import Options
from unhang._watchdog.helpers import Helpers
from unhang._watchdog.incidents import Incidents
from unhang._watchdog.kill import Outcome
from unhang._watchdog.page_watch import PageWatch
from unhang._watchdog.recorder import Recorder
from unhang._watchdog.seen import Seen
from unhang._watchdog.timers import Timers
from unhang._watchdog.tree_ending import Ending
from unhang._watchdog.watched import Expired, Watched
from unhang.report.model import Report

logger = logging.getLogger("unhang.watchdog")

_MOST_HELPERS = 8
_MOST_WRITERS = 2
# Workers that are looked at before their deadlines, at once.
_MOST_EARLY = 16
# Seconds for which another thread waits until the loop says who is a worker.
_FOR_LOOP = 0.5
# A thread that waited for a processor for this part of the time is starved; and the seconds that this takes to tell.
_STARVED = 0.5
_MOMENT = 0.02
# Seconds to wait, when the server stops, for reports that are being made.
_LAST_REPORTS = 1.0


class Tell(Protocol):
    """Told what happens."""

    def __call__(
        self, event: str, worker: Watched | None, timers: list[Expired], detail: str = "", **more: Any
    ) -> None:
        """The event, the worker, its timers, the earliest first, and what else `unhang.report.live.Event` has of it."""


class Response:
    """What is done about workers that hang.

    Args:
        waiter: what the loop waits with.
        policy: how workers are ended, unless a timer says otherwise.
        recorder: makes the reports.
        tell: told what happens.
        users: whose processes may be signalled, besides this user's.
        spare_stopped: as for `SharedTimerServer`.
        options: what evidence is gathered.
        stderr_of: the end of what a process wrote to its standard error, if the caller has it.
        expects_exit: whether it is no news that a worker ends so.
        clock: monotonic time.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        waiter: Waiter,
        policy: Policy,
        recorder: Recorder,
        tell: Tell,
        *,
        users: frozenset[int] = frozenset(),
        spare_stopped: bool = False,
        options: Options | None = None,
        stderr_of: Callable[[int], str] | None = None,
        expects_exit: Callable[[str], bool] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._waiter = waiter
        self._policy = policy
        self._tell = tell
        self._users = users
        self._spare_stopped = spare_stopped
        self._stderr_of = stderr_of
        self._expects_exit = expects_exit
        self._options = options or Options()
        self._recorder = recorder
        clock = self._clock = clock or SystemClock()
        self.watch = PageWatch(self, clock, policy.pretimeout)
        self._helpers = Helpers(_MOST_HELPERS, waiter.wake)
        self._writers = Helpers(_MOST_WRITERS, waiter.wake)
        self.departures = Departures(waiter, clock, self._died)
        self._escalations = Escalations(self, waiter, clock, self.watch.credits)
        self._incidents = Incidents(
            self._helpers,
            self._writers,
            clock,
            lambda: self.watch.workers,
            self.departures,
            functools.partial(recorder.record, told=self.reported),
            self._is_gathered,
            evidence=policy.evidence,
            options=self._options,
            users=users,
            stderr_of=self._tail_of,
        )
        # The reception's: the page of a worker is damaged; the worker runs another program than when it came.
        self.tell_damage: Callable[[Watched, str], None] | None = None
        self.forget_program: Callable[[Watched], None] | None = None
        self._asked = Asked(self._helpers, self._incidents.subject, self._options, clock)

    def _tail_of(self, worker: Watched) -> Callable[[], str] | None:
        return None if self._stderr_of is None else functools.partial(self._stderr_of, worker.pid)

    # The hands of the watch.

    def execute(self, worker: Watched, timers: list[Expired], still: Callable[[], Outcome | None]) -> Outcome:
        """Begin to end a worker."""
        if worker.handle is None:
            return Outcome.GONE
        outcome = self._why_not_by_its_surroundings(worker)
        if outcome is not None:
            return outcome
        policy = self._policy_for(timers)
        if not policy.evidence and not policy.tree:
            return self._execute_at_once(worker, timers, still, policy)
        outcome = still()
        if outcome is not None:
            return outcome
        # What is certain to be let be need not be found out about.
        outcome = self._judge(worker.handle)
        if outcome is not None:
            return outcome
        self._escalations.begin(self._member(worker, worker.handle, timers, policy))
        return Outcome.PENDING

    def _why_not_by_its_surroundings(self, worker: Watched) -> Outcome | None:
        """What keeps a worker from being signalled that its handle does not show: its program, clock, control group."""
        if is_another(worker.program, worker.pid):
            logger.info("pid %s runs another program since exec: the timers of the one before are void", worker.pid)
            if self.forget_program is not None:
                self._helpers.post(functools.partial(self.forget_program, worker))
            return Outcome.GONE
        if has_another_clock(worker.pid):
            logger.error(
                "Not ending pid %s: it has entered another time namespace, whose clock shows another time", worker.pid
            )
            return Outcome.REFUSED
        return Outcome.HELD if is_frozen(worker.pid) else None

    def _execute_at_once(
        self, worker: Watched, timers: list[Expired], still: Callable[[], Outcome | None], policy: Policy
    ) -> Outcome:
        """Where no evidence is wanted, nothing at all stands between the deadline and the signal."""
        assert worker.handle is not None  # noqa: S101 - for the type checker: see `execute`
        number = policy.signal or signal.SIGKILL
        outcome = kill.send(worker.handle, number, self._users, still, spare_stopped=self._spare_stopped)
        if outcome is not Outcome.SIGNALLED:
            return outcome
        self._escalations.adopt(self._member(worker, worker.handle, timers, policy), number)
        return Outcome.PENDING

    def _member(self, worker: Watched, handle: ProcessHandle, timers: list[Expired], policy: Policy) -> Member:
        late = timers[0].late
        return Member(worker, handle.copy(), timers, policy, self._clock.now() - late, late)

    def _policy_for(self, timers: list[Expired]) -> Policy:
        """The earliest timer decides."""
        number, grace = parse_ending(timers[0].ending)
        return replace(
            self._policy,
            signal=self._policy.signal if number is None else number or None,
            grace=self._policy.grace if grace is None else grace,
        )

    def look_early(self, worker: Watched) -> None:
        """See `Hands.look_early`."""
        first, _ = worker.timers.nearest(1)
        thread = first[0].thread if first else 0
        worker.turns = turns(worker.pid, thread, self._clock.now())
        if not self._policy.evidence or self._helpers.backlog >= _MOST_EARLY:
            return  # of a crowd, none has more evidence by that

        def seen(found: Look | None) -> None:
            worker.earlier = found

        self._helpers.submit(functools.partial(look, worker.pid, thread), seen)

    def damaged(self, worker: Watched, why: str) -> None:
        """See `Hands.damaged`."""
        if self.tell_damage is not None:
            self.tell_damage(worker, why)

    def prepare(self, worker: Watched, timers: list[Expired]) -> None:
        """See `Hands.prepare`."""
        self._policy_for(timers)
        if worker.handle is not None:
            kill.rehearse(worker.handle, self._users)

    def could_not_run(self, worker: Watched, timer: Expired) -> float:
        """See `Hands.could_not_run`.

        An estimate: the share of the last second, since a look at it behind its arming, stands for all of its time.
        Nothing is measured while evidence is gathered, which keeps it from running itself.
        """
        now = self._clock.now()
        before, worker.turns = worker.turns, None
        if before is None or not _MOMENT <= now - before.instant <= timer.running:
            return 0.0
        found = turns(worker.pid, timer.thread, now)
        share = 0.0 if found is None else found.share_of_waiting(before)
        return share * timer.running if share >= _STARVED else 0.0

    def is_held(self, worker: Watched) -> bool:
        """See `Hands.is_held`."""
        return worker.handle is not None and (self._judge(worker.handle) is Outcome.HELD or is_frozen(worker.pid))

    def tell(self, event: str, worker: Watched | None, timers: list[Expired]) -> None:
        """See `Hands.tell`."""
        if worker is not None and event in ("expired", "pretimeout"):
            self._incidents.noticed(worker, timers, expired=event == "expired")
        self._tell(event, worker, timers)

    # What the escalations have done for them.

    def gather(self, member: Member) -> None:
        """See `Surgeon.gather`."""
        self._incidents.expired(member)

    def _is_gathered(self, member: Member) -> None:
        self._escalations.feed(member, Event.GATHERED)

    def recheck(self, member: Member) -> list[Expired] | Outcome:
        """See `Surgeon.recheck`."""
        return self.watch.recheck(member.watched, member.timers)

    def _judge(self, handle: ProcessHandle) -> Outcome | None:
        return kill.judge(handle, self._users, spare_stopped=self._spare_stopped)

    def send(self, member: Member, number: int, *, if_still: bool) -> Outcome:
        """See `Surgeon.send`."""

        def still() -> Outcome | None:
            if not if_still:
                return None
            found = self.recheck(member)
            if isinstance(found, Outcome):
                return found
            if self._incidents.is_at_a_prompt(member.watched):
                return Outcome.HELD
            return self._why_not_by_its_surroundings(member.watched)

        return kill.send(member.handle, number, self._users, still, spare_stopped=self._spare_stopped)

    def plant(self, member: Member) -> TreeEnding | None:
        """See `Surgeon.plant`."""
        may = functools.partial(kill.refusal_of_relative, also=self._users)

        def gone() -> None:
            self._helpers.post(lambda: self._escalations.feed(member, Event.DIED))

        try:
            return Ending(member.handle, may, gone)
        except RuntimeError:
            logger.exception("The tree of pid %s cannot be ended: no thread can be started", member.handle.pid)
            return None

    def settled(self, member: Member, outcome: Outcome) -> None:
        """See `Surgeon.settled`."""
        self.watch.settle(member.watched, outcome, member.timers)
        self._incidents.changed(member.watched)

    def told(self, event: str, member: Member) -> None:
        """See `Surgeon.told`."""
        self._incidents.changed(member.watched)
        sent = [signal.Signals(number).name for number in member.signals]
        more: dict[str, Any] = {"late": member.late, "hang": self._incidents.hang_of(member.watched)}
        if sent:
            more["signal"] = sent[-1]
        if event == "killed":
            more["waited"] = self._clock.now() - member.deadline
        self._tell(event, member.watched, member.timers, " and ".join(sent), **more)

    def reported(self, report: Report) -> None:
        """A report was made, in a thread: tell it in the loop."""
        self._writers.post(lambda: self._tell("report", None, [], report.headline, report=report.id, job=report.job))

    def ask(self, worker: Watched, done: Callable[[Report | None], None]) -> bool:
        """Begin to gather the stacks of a worker that nobody is after; see `Asked.gather`."""
        return self._asked.gather(worker, done)

    def report_command(self, overrun: Overrun, done: Callable[[], None]) -> CommandReport:
        """Begin to report a command, from any thread; see `CommandReport.start`."""
        report = CommandReport(
            overrun,
            self._known,
            self._recorder,
            evidence=self._policy.evidence,
            options=self._options,
            stderr_of=self._stderr_of,
            users=self._users,
        )
        report.start(done)
        return report

    def _known(self) -> dict[int, Known]:
        """The workers, by pid, as the loop has them; for other threads. Nobody, if it has no time to say so."""
        answers: queue.SimpleQueue[dict[int, Known]] = queue.SimpleQueue()

        def look() -> None:
            now = round(self._clock.now() * 1e9)
            seen = [Seen(one, one.handle.copy(), Timers.of(one, now)) for one in self.watch.workers if one.handle]
            answers.put({each.watched.pid: Known(each, self._incidents.subject(each)) for each in seen})

        self._helpers.post(look)
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=_FOR_LOOP)
        return {}

    # Workers that come and go.

    def came(self, worker: Watched, *, was_lost: bool) -> None:
        """A worker is watched from now on; whether it had lost its watchdog before."""
        self._tell("lost watchdog" if was_lost else "connect", worker, [])

    def leave(self, worker: Watched) -> None:
        """A worker exits or hangs up: while its pages can still be read."""
        if worker.number:  # it has come
            self._tell("disconnect", worker, [])
        member = self._escalations.of(worker)
        departure = self.departures.add(worker, by_us=member is not None and bool(member.signals))
        self._incidents.left(worker, departure)
        self.watch.leave(worker)

    def _died(self, departure: Departure) -> None:
        job = departure.origin.identity.job
        if job and self._incidents.knows(job):
            return  # the report says so
        if self._expects_exit is not None and self._expects_exit(departure.exit):
            return
        worker = Watched(departure.pid, origin=departure.origin)
        timers = [
            Expired(each.seen.scope, each.seen.timeout / 1e9, 0.0, (departure.timers.at - each.seen.armed_at) / 1e9)
            for each in departure.timers.armed
        ]
        self._tell("died", worker, timers, departure.exit)

    # The loop.

    def wait_time(self) -> float:
        """Seconds to wait, at most, before the next `turn`."""
        # The watch comes last: what is computed behind it makes its deadlines late.
        return min(self._escalations.wait_time(), self._incidents.wait_time(), self.watch.wait_time())

    def rehearse(self) -> None:
        """Shortly before the end of a wait: see `Waiter.wait`."""
        # What goes wrong now will go wrong at the deadline, and is told then.
        with contextlib.suppress(Exception):
            self.watch.rehearse()

    def turn(self) -> bool:
        """Behind each wait; True once a beat."""
        with self._helpers.held(), self._writers.held():
            beat = self.watch.turn()
            self._incidents.hurry(self._escalations.make_room())
            if beat:
                self.departures.tidy()
            # Signals come first, of many workers too; reports about those that had no time for evidence come behind.
            self._escalations.turn()
            self._deliver()
            self._escalations.turn()
            self._incidents.turn()
        return beat

    def _wait_while(self, condition: Callable[[], bool], until: float) -> None:
        while condition() and time.monotonic() < until:
            self._waiter.wait(max(0.0, min(0.05, until - time.monotonic())))
            self._deliver()

    def _deliver(self) -> None:
        self._helpers.deliver()
        self._writers.deliver()

    def close(self) -> None:
        """End what has begun, and finish the reports, for a second at most. Behind the loop's end."""
        until = time.monotonic() + _LAST_REPORTS
        self._wait_while(self._escalations.hurry, until)
        self._escalations.close()
        self._wait_while(self._incidents.finish, until)
        self._helpers.close()
        self._writers.close()
        self.departures.close()
