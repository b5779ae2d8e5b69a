"""Carrying out escalations: many side by side, each where the table of `unhang._core.escalation` has it.

It belongs to the server's loop: signals are sent here, and nothing is waited for. What takes its time, evidence and
the signals to a whole tree, is done by others, who come back with an `Event`.
"""

from __future__ import annotations

import functools
import logging
import math
import signal
from dataclasses import dataclass, field
from typing import Protocol

from unhang._core.clock import Clock
from unhang._core.credits import Credits
from unhang._core.escalation import TABLE, Action, Event, Policy, Stage
from unhang._platform.process import ProcessHandle
from unhang._platform.waiter import Waiter
from unhang._watchdog.kill import Outcome
from unhang._watchdog.watched import Expired, Watched

logger = logging.getLogger(__name__)

# Seconds behind SIGKILL after which a worker is told as unkillable.
PATIENCE = 5.0
# Seconds until a kill that a debugger prevents is tried again.
_HELD_PAUSE = 1.0
# Seconds between two looks at a worker without a pidfd.
_LOOK = 0.05
# Evidence begins late where many expire at once, and has this part of its time then.
_LEAST_EVIDENCE = 0.1
# More workers than these at once need time to be signalled: seconds for each, and which part of the whole at most.
_FEW = 16
_A_SIGNAL = 0.002
_MOST_ROOM = 0.6

_OF_OUTCOME = {
    Outcome.GONE: Event.DIED,
    Outcome.REFUSED: Event.REFUSED,
    Outcome.HELD: Event.HELD,
    Outcome.FAILED: Event.FAILED,
    Outcome.SPARED: Event.MISSED,
    Outcome.LATER: Event.POSTPONED,
}
_SETTLED = {
    Action.SPARE: ("spared", Outcome.SPARED),
    Action.POSTPONE: ("postponed", Outcome.LATER),
    Action.HOLD: ("held", Outcome.HELD),
    Action.REFUSE: ("refused", Outcome.REFUSED),
    Action.RETRY: ("failed", Outcome.FAILED),
}


@dataclass(eq=False)
class Member:
    """A worker that is dealt with.

    Attributes:
        watched: as the watch sees it.
        handle: the process, also when its connection is gone.
        timers: those that have expired, the earliest first.
        policy: how it is to be ended.
        deadline: of the first of these timers, monotonic seconds.
        late: seconds behind it at which the worker was judged.
        signal_at: when it is signalled, whatever evidence there is, monotonic seconds; earlier if many are.
        steps: what was done, each with its instant (monotonic seconds).
        outcome: see `unhang.report.model.Worker`.
        signals: those that were sent to end it, in order.
    """

    watched: Watched
    handle: ProcessHandle
    timers: list[Expired]
    policy: Policy
    deadline: float = 0.0
    late: float = 0.0
    signal_at: float = math.inf
    stage: Stage = Stage.WATCHED
    since: float = 0.0  # when its time began, monotonic seconds
    until: float = math.inf  # the end of the stage, without what it gets back
    steps: list[tuple[float, str]] = field(default_factory=list)
    outcome: str = ""
    signals: list[int] = field(default_factory=list)
    tree: TreeEnding | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing more will be done about it."""
        return self.stage in (Stage.WATCHED, Stage.OVER)


class TreeEnding(Protocol):
    """A worker and all that it has started, on their way out; see `unhang._watchdog.tree_ending`."""

    def ask(self, number: int) -> None:
        """Send a signal to all of them, and SIGCONT."""

    def kill(self) -> None:
        """Kill all of them."""

    def close(self) -> None:
        """Leave them alone from now on."""


class Surgeon(Protocol):
    """What the escalations have done for them. All are called in the loop's thread."""

    def gather(self, member: Member) -> None:
        """Gather evidence, then `Escalations.feed` `Event.GATHERED`."""

    def recheck(self, member: Member) -> list[Expired] | Outcome:
        """The timers that have expired and are still armed; else what has become of those it was judged for."""

    def send(self, member: Member, number: int, *, if_still: bool) -> Outcome:
        """Send a signal, if the rules allow it by now; and, if that is asked, only if its block still runs."""

    def plant(self, member: Member) -> TreeEnding | None:
        """Begin to end a whole tree; `Event.DIED` is fed when nobody is left of it. None if that cannot be begun."""

    def settled(self, member: Member, outcome: Outcome) -> None:
        """It is over, without its death or with it (`Outcome.GONE`); to be told, if it is news."""

    def told(self, event: str, member: Member) -> None:
        """``"killed"`` (the first signal was sent), ``"held"``, ``"ended"``, ``"unkillable"``."""


class Escalations:
    """All that are under way.

    Args:
        surgeon: what is done.
        waiter: what the loop waits with: the deaths of workers are seen by it.
        clock: monotonic time.
        credits_: what the end of each stage gets back.
    """

    def __init__(self, surgeon: Surgeon, waiter: Waiter | None, clock: Clock, credits_: Credits) -> None:
        self._credits = credits_
        self._surgeon = surgeon
        self._waiter = waiter
        self._clock = clock
        self._members: list[Member] = []

    def begin(self, member: Member) -> None:
        """A timer of this worker has expired."""
        self._register(member)
        self.feed(member, Event.EXPIRED)

    def adopt(self, member: Member, number: int) -> None:
        """A timer of this worker has expired, and it was sent its first signal."""
        now = self._clock.now()
        is_soft = number != signal.SIGKILL
        member.stage = Stage.GRACE if is_soft else Stage.KILLED
        _takes(member, now, member.policy.grace if is_soft else PATIENCE)
        if is_soft:
            self._surgeon.send(member, signal.SIGCONT, if_still=False)
        self._signalled(member, now, number)
        self._register(member)
        self._surgeon.gather(member)

    def _register(self, member: Member) -> None:
        self._members.append(member)
        if self._waiter is not None and member.handle.fd >= 0:
            self._waiter.call_once(member.handle.fd, functools.partial(self._died, member))

    def _died(self, member: Member) -> None:
        # The end of a tree is told by whoever ends it.
        if member.tree is None:
            self.feed(member, Event.DIED)

    def of(self, watched: Watched) -> Member | None:
        """The escalation of this worker."""
        return next((member for member in self._members if member.watched is watched), None)

    def feed(self, member: Member, event: Event) -> None:
        """Something has happened: do what the table says, and what follows from that at once."""
        following: Event | None = event
        while following is not None:
            action, member.stage = TABLE[member.stage, following]
            following = self._do(action, member)
        if member.is_settled and member in self._members:
            self._forget(member)

    def _do(self, action: Action, member: Member) -> Event | None:
        """Carry an action out; returns what it has led to."""
        now = self._clock.now()
        if action in _SETTLED:
            self._settle(action, member, now)
        elif action is Action.GATHER:
            _takes(member, now, _time_for_evidence(member, now))
            member.signal_at = member.until
            self._surgeon.gather(member)
        elif action is Action.RECHECK:
            return self._recheck(member)
        elif action is Action.ASK:
            return self._ask(member, now)
        elif action is Action.KILL:
            return self._kill(member, now)
        elif action is Action.WAIT:
            _takes(member, now, _HELD_PAUSE)
            if member.steps[-1:] and member.steps[-1][1] != "held":
                self._step(member, now, "held")
                self._surgeon.told("held", member)
        elif action is Action.TELL:
            member.until = math.inf
            self._step(member, now, "unkillable")
            member.outcome = "unkillable"
            self._surgeon.told("unkillable", member)
        elif action in (Action.CONFIRM, Action.LOSE):
            self._end(action, member, now)
        return None

    def _recheck(self, member: Member) -> Event | None:
        if not member.policy.evidence:
            return Event.STILL  # it was asked just now, and is asked again with the signal
        still = self._surgeon.recheck(member)
        if isinstance(still, Outcome):
            return Event.LEFT if still is Outcome.SPARED else Event.POSTPONED
        member.timers = still
        return Event.STILL

    def _ask(self, member: Member, now: float) -> Event | None:
        policy = member.policy
        number = policy.signal or 0
        soft = number not in (0, signal.SIGKILL)
        _takes(member, now, policy.grace if soft else 0.0)
        if policy.tree:
            member.tree = self._surgeon.plant(member)
            if member.tree is None:
                return Event.FAILED
        if not soft:
            return Event.TIMEOUT
        # Of a tree, whoever ends it signals the deepest first: 0 only asks whether that is allowed.
        outcome = self._surgeon.send(member, 0 if policy.tree else number, if_still=True)
        if outcome is not Outcome.SIGNALLED:
            return _event_of(outcome, member)
        self._signalled(member, now, number)
        if member.tree is not None:
            member.tree.ask(number)
        else:
            self._surgeon.send(member, signal.SIGCONT, if_still=False)
        return None

    def _kill(self, member: Member, now: float) -> Event | None:
        _takes(member, now, PATIENCE)
        # Without a soft signal this is the first one.
        number = 0 if member.tree else signal.SIGKILL
        outcome = self._surgeon.send(member, number, if_still=not member.signals)
        if member.tree is not None and outcome in (Outcome.SIGNALLED, Outcome.GONE):
            # The worker may be gone, and what it has started be left.
            self._signalled(member, now, signal.SIGKILL)
            member.tree.kill()
            return None
        if outcome is not Outcome.SIGNALLED:
            return _event_of(outcome, member)
        self._signalled(member, now, signal.SIGKILL)
        return None

    def _signalled(self, member: Member, now: float, number: int) -> None:
        first = not member.signals
        member.signals.append(int(number))
        member.outcome = "killed"
        self._step(member, now, signal.Signals(number).name)
        if first:
            self._surgeon.told("killed", member)

    def _end(self, action: Action, member: Member, now: float) -> None:
        self._step(member, now, "dead")
        if action is Action.LOSE or not member.signals:
            member.outcome = "gone"
        else:
            member.outcome = "killed"
            self._surgeon.told("ended", member)
        self._surgeon.settled(member, Outcome.GONE)

    def _settle(self, action: Action, member: Member, now: float) -> None:
        member.outcome, outcome = _SETTLED[action]
        self._step(member, now, member.outcome)
        self._surgeon.settled(member, outcome)

    def _step(self, member: Member, now: float, what: str) -> None:
        member.steps.append((now, what))

    def _forget(self, member: Member) -> None:
        self._members.remove(member)
        member.until = math.inf
        if member.tree is not None:
            member.tree.close()
        if self._waiter is not None and member.handle.fd >= 0:
            self._waiter.forget(member.handle.fd)

    def _ends_at(self, member: Member) -> float:
        """When the time of its stage is over: while the watchdog was away, the worker may have been, too."""
        return self._credits.moved(member.since, member.until)

    def make_room(self) -> list[Member]:
        """End the time for evidence early enough for all signals to be sent in time; returns whom that is about."""
        gathering = [member for member in self._members if member.stage is Stage.EVIDENCE]
        if len(gathering) <= _FEW:
            return []
        for member in gathering:
            room = min(len(gathering) * _A_SIGNAL, member.policy.evidence * _MOST_ROOM)
            member.until = min(member.until, member.signal_at - room)
        return gathering

    def wait_time(self) -> float:
        """Seconds to wait, at most, before the next `turn`."""
        now = self._clock.now()
        wait = min((self._ends_at(member) - now for member in self._members), default=math.inf)
        if any(member.handle.fd < 0 for member in self._members):
            wait = min(wait, _LOOK)
        return max(0.0, wait)

    def turn(self) -> None:
        """Behind each turn of the watch: end the stages whose time is over."""
        now = self._clock.now()
        for member in list(self._members):
            if member.handle.fd < 0 and member.tree is None and not member.handle.alive():
                self.feed(member, Event.DIED)
            elif member.until <= now and self._ends_at(member) <= now:
                self.feed(member, Event.TIMEOUT)

    def hurry(self) -> bool:
        """The watchdog ends: kill whoever was asked to end, since nobody will later; whether anybody is to die yet."""
        for member in list(self._members):
            if member.stage is Stage.GRACE:
                self.feed(member, Event.TIMEOUT)
        return any(member.stage is Stage.KILLED for member in self._members)

    def close(self) -> None:
        """Give up all of them."""
        for member in list(self._members):
            self._forget(member)

    def __len__(self) -> int:
        return len(self._members)


def _takes(member: Member, now: float, seconds: float) -> None:
    """From now on, its stage lasts so long."""
    member.since, member.until = now, now + seconds


def _time_for_evidence(member: Member, now: float) -> float:
    """Counted from the deadline, as the promise is; a worker that was held, or came late, has all of the time."""
    whole = member.policy.evidence
    late = now - member.deadline
    return whole if not 0 <= late <= whole else max(whole - late, whole * _LEAST_EVIDENCE)


def _event_of(outcome: Outcome, member: Member) -> Event:
    """Why a signal was not sent. A debugger before the first one is another matter than one behind it."""
    event = _OF_OUTCOME[outcome]
    return Event.PREVENTED if event is Event.HELD and not member.signals else event
