"""Carrying out escalations, with a clock turned by hand and nobody signalled."""

import signal

import pytest

from unhang._core.credits import Credits
from unhang._core.escalation import Event, Policy, Stage
from unhang._watchdog.escalations import PATIENCE, Escalations, Member
from unhang._watchdog.kill import Outcome
from unhang._watchdog.watched import Expired, Watched
from unhang.testing import ManualClock

TIMER = Expired("step", 5.0, 0.0, 5.0)


class Handle:
    """A process that dies when the test says so; without a pidfd."""

    fd = -1

    def __init__(self):
        self.dead = False

    def alive(self):
        return not self.dead


class Theatre:
    """What escalations have done for them, written down."""

    def __init__(self):
        self.clock = ManualClock()
        self.credits = Credits()
        self.escalations = Escalations(self, None, self.clock, self.credits)
        self.sent, self.told_, self.settled_, self.orders = [], [], [], []
        self.still = [TIMER]
        self.outcome = Outcome.SIGNALLED
        self.deadly = set()
        self.left_late = False
        self.at = self.clock.now()

    def member(self, policy=None):
        return Member(Watched(7), Handle(), [TIMER], policy or Policy())

    def gather(self, member):
        if not member.policy.evidence:
            self.escalations.feed(member, Event.GATHERED)

    def recheck(self, member):
        return self.still

    def send(self, member, number, *, if_still):
        if if_still and self.left_late:
            return Outcome.SPARED
        if self.outcome is Outcome.SIGNALLED:
            self.sent.append((round(self.clock.now() - self.at, 3), int(number)))
            member.handle.dead = member.handle.dead or number in self.deadly
        return self.outcome

    def plant(self, member):
        return self

    def ask(self, number):
        self.orders.append(("ask", int(number)))

    def kill(self):
        self.orders.append(("kill",))

    def close(self):
        self.orders.append(("close",))

    def settled(self, member, outcome):
        self.settled_.append(outcome)

    def told(self, event, member):
        self.told_.append(event)

    def advance(self, seconds):
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            self.clock.jump(max(1e-9, min(until - self.clock.now(), self.escalations.wait_time())))
            self.escalations.turn()


@pytest.fixture
def theatre():
    return Theatre()


def test_a_deaf_worker_is_asked_and_then_killed(theatre):
    """SIGTERM and SIGCONT when the evidence is there, SIGKILL behind the grace, unkillable behind the patience."""
    member = theatre.member(Policy(grace=3))
    theatre.escalations.begin(member)
    theatre.advance(0.5)
    theatre.escalations.feed(member, Event.GATHERED)
    theatre.advance(3 + PATIENCE + 1)
    assert theatre.sent == [(0.5, signal.SIGTERM), (0.5, signal.SIGCONT), (3.5, signal.SIGKILL)]
    assert theatre.told_ == ["killed", "unkillable"]
    assert member.stage is Stage.UNKILLABLE
    member.handle.dead = True
    theatre.advance(1)
    assert theatre.told_[2:] == ["ended"]
    assert [what for _, what in member.steps] == ["SIGTERM", "SIGKILL", "unkillable", "dead"]
    assert len(theatre.escalations) == 0


@pytest.mark.parametrize(("count", "late"), [(1, 0.0), (16, 0.0), (1, 0.2), (300, 0.1), (1000, 0.5), (1000, 1.5)])
def test_many_are_signalled_in_time(theatre, count, late):
    """The time for evidence counts from the deadline, and ends so early that signals to all of them fit into it."""
    began = theatre.clock.now()
    for _ in range(count):
        member = theatre.member(Policy(evidence=2))
        member.deadline = began - late
        theatre.escalations.begin(member)
    theatre.escalations.make_room()
    theatre.advance(2.1)
    first = [at for at, number in theatre.sent if number == signal.SIGTERM]
    assert len(first) == count
    least = 0.0 if count <= 16 else min(0.001 * count, 0.5)
    assert max(first) <= 2.0 - late - least or max(first) <= 0.2
    assert count > 16 or max(first) == round(2.0 - late, 3)


def test_a_worker_that_comes_late_has_all_the_time_for_evidence(theatre):
    """A debugger held it, or its watchdog was gone: its deadline has been over for long."""
    member = theatre.member(Policy(evidence=2))
    member.deadline = theatre.clock.now() - 60
    theatre.escalations.begin(member)
    theatre.advance(3)
    assert theatre.sent[0] == (2.0, signal.SIGTERM)


def test_evidence_that_does_not_come_is_not_waited_for(theatre):
    """The first signal comes when its time is over."""
    theatre.deadly = {signal.SIGTERM}
    theatre.escalations.begin(theatre.member(Policy(evidence=2)))
    theatre.advance(2.5)
    assert theatre.sent[0] == (2.0, signal.SIGTERM)
    assert theatre.told_ == ["killed", "ended"]
    assert theatre.settled_ == [Outcome.GONE]


def test_without_evidence_and_soft_signal_it_is_killed_at_once(theatre):
    """Nothing stands between the deadline and SIGKILL."""
    theatre.deadly = {signal.SIGKILL}
    theatre.escalations.begin(theatre.member(Policy(signal=None, evidence=0)))
    theatre.escalations.turn()
    assert theatre.sent == [(0.0, signal.SIGKILL)]


def test_a_block_that_ends_during_the_evidence_is_spared(theatre):
    """Nothing is sent."""
    member = theatre.member()
    theatre.escalations.begin(member)
    theatre.still = Outcome.SPARED
    theatre.escalations.feed(member, Event.GATHERED)
    assert (theatre.sent, theatre.told_, theatre.settled_) == ([], [], [Outcome.SPARED])
    assert member.outcome == "spared"


@pytest.mark.parametrize("number", [signal.SIGTERM, None])
def test_a_block_that_ends_between_the_recheck_and_the_first_signal_is_spared(theatre, number):
    """Whichever signal is the first one."""
    member = theatre.member(Policy(signal=number))
    theatre.escalations.begin(member)
    theatre.left_late = True
    theatre.escalations.feed(member, Event.GATHERED)
    if number is None:
        theatre.advance(0.1)
    assert (theatre.sent, theatre.settled_, member.outcome) == ([], [Outcome.SPARED], "spared")


def test_a_worker_that_leaves_its_block_in_grace_is_killed_all_the_same(theatre):
    """It was asked to end: it may be half gone."""
    member = theatre.member(Policy(grace=1))
    theatre.escalations.begin(member)
    theatre.escalations.feed(member, Event.GATHERED)
    theatre.escalations.feed(member, Event.LEFT)
    theatre.advance(1.5)
    assert theatre.sent[-1] == (1.0, signal.SIGKILL)


def test_a_block_that_gets_time_back_is_judged_again(theatre):
    """Nothing is sent, and nothing is told: it was not left."""
    member = theatre.member()
    theatre.escalations.begin(member)
    theatre.still = Outcome.LATER
    theatre.escalations.feed(member, Event.GATHERED)
    assert (theatre.sent, theatre.told_, theatre.settled_) == ([], [], [Outcome.LATER])
    assert member.outcome == "postponed"


@pytest.mark.parametrize(
    ("outcome", "settled", "said"),
    [
        (Outcome.HELD, Outcome.HELD, "held"),
        (Outcome.REFUSED, Outcome.REFUSED, "refused"),
        (Outcome.FAILED, Outcome.FAILED, "failed"),
    ],
)
def test_what_keeps_a_worker_from_being_asked_ends_the_escalation(theatre, outcome, settled, said):
    """The watch decides when to look again."""
    theatre.outcome = outcome
    member = theatre.member()
    theatre.escalations.begin(member)
    theatre.escalations.feed(member, Event.GATHERED)
    assert (theatre.settled_, member.outcome) == ([settled], said)


def test_a_debugger_in_the_grace_delays_the_kill(theatre):
    """It is tried again each second, until the debugger lets go."""
    member = theatre.member(Policy(grace=1))
    theatre.escalations.begin(member)
    theatre.escalations.feed(member, Event.GATHERED)
    theatre.outcome = Outcome.HELD
    theatre.advance(3.5)
    theatre.outcome = Outcome.SIGNALLED
    theatre.advance(1)
    assert theatre.sent[-1] == (4.0, signal.SIGKILL)


def test_time_in_which_the_watchdog_was_away_is_no_grace(theatre):
    """A worker that could not run either has its grace again."""
    member = theatre.member(Policy(grace=2))
    theatre.escalations.begin(member)
    theatre.escalations.feed(member, Event.GATHERED)
    theatre.clock.jump(10)
    theatre.credits.add(round(theatre.clock.now() * 1e9), 10_000_000_000)
    theatre.escalations.turn()
    assert signal.SIGKILL not in [number for _, number in theatre.sent]
    theatre.advance(2.1)
    assert theatre.sent[-1] == (12.0, signal.SIGKILL)


def test_a_grace_ends_however_little_the_watchdog_is_there(theatre):
    """What it loses again and again is given back once: then the worker that will not end is killed."""
    theatre.escalations.begin(member := theatre.member(Policy(grace=3)))
    theatre.escalations.feed(member, Event.GATHERED)
    for _ in range(20):
        theatre.clock.jump(1)
        theatre.credits.add(round(theatre.clock.now() * 1e9), 1_000_000_000)
        theatre.escalations.turn()
    assert theatre.sent[-1] == (6.0, signal.SIGKILL)


def test_many_at_once_do_not_wait_for_each_other(theatre):
    """Each has its own stages and times."""
    members = [theatre.member(Policy(evidence=0, grace=grace)) for grace in (1, 3, 2)]
    for member in members:
        theatre.escalations.begin(member)
    theatre.advance(4)
    assert [at for at, number in theatre.sent if number == signal.SIGKILL] == [1.0, 2.0, 3.0]


def test_a_tree_is_ended_by_whoever_finds_it(theatre):
    """The worker is only asked whether it may be signalled: of its tree, the deepest come first."""
    member = theatre.member(Policy(evidence=0, grace=1, tree=True))
    theatre.escalations.begin(member)
    theatre.advance(1.5)
    assert {number for _, number in theatre.sent} == {0}
    assert theatre.orders == [("ask", signal.SIGTERM), ("kill",)]
    member.handle.dead = True
    theatre.advance(0.5)
    assert len(theatre.escalations) == 1  # its children may be there
    theatre.escalations.feed(member, Event.DIED)
    assert theatre.orders[-1] == ("close",)
    assert member.outcome == "killed"


def test_a_worker_that_dies_by_itself_is_not_said_to_be_killed(theatre):
    """Between the deadline and the first signal."""
    member = theatre.member()
    theatre.escalations.begin(member)
    member.handle.dead = True
    theatre.advance(0.1)
    assert (theatre.told_, member.outcome) == ([], "gone")
