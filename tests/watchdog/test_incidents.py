"""Incidents: who belongs to which, and when they are reported, with a clock turned by hand."""

import os

import pytest

from unhang._core.escalation import Policy, Stage
from unhang._core.identity import Identity
from unhang._core.page import DEADLINE, SEQUENCE, PageWriter, label
from unhang._core.page_reader import PageReader
from unhang._core.timer_reader import TimerReader
from unhang._platform.process import ProcessHandle
from unhang._watchdog import incidents as incidents_module
from unhang._watchdog.departures import Departures
from unhang._watchdog.escalations import Member
from unhang._watchdog.evidence import Options
from unhang._watchdog.incident import JOIN
from unhang._watchdog.incidents import Incidents
from unhang._watchdog.watched import Expired, Origin, Watched
from unhang.report.model import Evidence, HangClass, Thread
from unhang.testing import ManualClock

SECOND = 10**9
FOUND = Evidence(threads=(Thread(id=1),), hang=HangClass.LOCK, stacks_from="py-spy")


class Hands:
    """Helpers that do nothing until the test says so."""

    def __init__(self):
        self.tasks = []

    def submit(self, task, done):
        self.tasks.append((task, done))

    def work(self, count=1000):
        while self.tasks and count:
            task, done = self.tasks.pop(0)
            done(task())
            count -= 1


class Scene:
    """Incidents over workers whose pages the test writes; evidence is made up."""

    def __init__(self, monkeypatch, evidence=2.0):
        self.clock = ManualClock()
        self.hands = Hands()
        self.workers, self.reports, self.fed, self.gathered = [], [], [], []
        self.found = {}
        monkeypatch.setattr(incidents_module, "gather", self.gather)
        self.incidents = Incidents(
            self.hands,
            self.hands,
            self.clock,
            lambda: self.workers,
            Departures(None, self.clock, lambda _: None),
            self.reports.append,
            self.feed,
            evidence=evidence,
            options=Options(),
            users=frozenset(),
            stderr_of=lambda _: None,
        )

    def gather(self, subject, *, gentle, budget, began, options):
        self.gathered.append((subject.scope, gentle))
        return self.found.get((subject.scope, gentle), FOUND)

    def feed(self, member):
        self.fed.append(member.watched.number)
        member.stage = Stage.GRACE
        member.steps.append((self.clock.now(), "SIGTERM"))

    def worker(self, rank, scope, running=5.0, left=0.0, job="job"):
        memory = bytearray(65536)
        page = PageWriter(memory)
        slot = page.add_slot()
        label(slot, scope.encode(), int((running + left) * SECOND))
        slot[SEQUENCE] = 1
        slot[DEADLINE] = self.clock.now_ns() + int(left * SECOND)
        watched = Watched(
            1000 + rank,
            ProcessHandle(os.getpid(), 0.0, -1),
            timers=TimerReader([PageReader(memoryview(memory))]),
            number=rank + 1,
            changed_at=self.clock.now_ns() - int(running * SECOND),
            origin=Origin(Identity(job, rank)),
        )
        self.workers.append(watched)
        return watched

    def expire(self, watched):
        timer = Expired(watched.timers.latest(1, armed=True)[0].scope, 5.0, 0.0, 5.0)
        member = Member(watched, watched.handle, [timer], Policy(), stage=Stage.EVIDENCE)
        self.incidents.expired(member)
        return member

    def pass_time(self, seconds):
        self.clock.jump(seconds)
        self.incidents.turn()

    def last(self):
        return self.reports[-1]


@pytest.fixture
def stage(monkeypatch):
    return Scene(monkeypatch)


def test_one_expiry_takes_the_stacks_of_the_whole_job(stage):
    """Those that are quiet too are looked into gently, before the first one is asked to end."""
    first = stage.worker(0, "reduce")
    for number in (1, 2, 3):
        stage.worker(number, "reduce" if number < 3 else "load", left=1.0)
    stage.worker(4, "elsewhere", job="another")
    stage.expire(first)
    stage.hands.work(3)
    assert (stage.reports, stage.fed) == ([], [])
    stage.hands.work()
    assert sorted(stage.gathered) == [("load", True), ("reduce", False), ("reduce", True), ("reduce", True)]
    assert {worker.rank for worker in stage.last().workers if worker.evidence} == {0, 1, 2, 3}
    assert stage.fed == [1]


def test_ranks_that_expire_together_are_one_report(stage):
    """Nobody is asked to end before the report has the stacks of all; the second does not make another one."""
    workers = [stage.worker(number, "reduce") for number in range(8)]
    for worker in workers:
        stage.expire(worker)
        stage.clock.jump(0.001)
    stage.hands.work()
    assert len({findings.id for findings in stage.reports}) == 1
    assert sorted(stage.fed) == list(range(1, 9))
    assert sum(findings.first for findings in stage.reports) == 1
    assert all(worker.evidence for worker in stage.last().workers)


def test_a_later_expiry_joins_for_a_while_and_then_begins_anew(stage):
    """Within the window it is the same incident, and after that another one."""
    for wait, incidents in ((0.0, 1), (JOIN - 1, 1), (JOIN + 1, 2)):
        stage.clock.jump(wait)
        member = stage.expire(stage.worker(len(stage.workers), "reduce"))
        stage.hands.work()
        member.stage = Stage.OVER
        stage.incidents.changed(member.watched)
        stage.pass_time(0.0)
        stage.hands.work()
        assert len({findings.id for findings in stage.reports}) == incidents


def test_a_worker_that_makes_progress_is_left_out(stage):
    """It is counted, and not looked into."""
    stage.worker(1, "reduce", running=0.5, left=5.0)
    stage.expire(stage.worker(0, "reduce"))
    stage.hands.work()
    assert [worker.rank for worker in stage.last().workers] == [0]
    assert stage.last().progressing == 1


def test_stacks_that_need_a_signal_are_waited_for_when_the_worker_expires_in_a_moment(stage):
    """Where nobody may look into them gently, the first is not killed before the others can be asked for theirs."""
    stage.found["reduce", True] = Evidence()
    first, second = stage.worker(0, "reduce"), stage.worker(1, "reduce", left=0.1)
    stage.expire(first)
    stage.hands.work()
    assert stage.fed == []
    stage.clock.jump(0.1)
    stage.expire(second)
    stage.hands.work()
    assert sorted(stage.fed) == [1, 2]
    assert stage.gathered.count(("reduce", False)) == 2


def test_a_worker_that_does_not_expire_after_all_is_not_waited_for_long(stage):
    """Two tenths of a second, then the first is dealt with."""
    stage.found["reduce", True] = Evidence()
    stage.worker(1, "reduce", left=0.1)
    stage.expire(stage.worker(0, "reduce"))
    stage.hands.work()
    assert 0.1 < stage.incidents.wait_time() <= 0.2
    stage.pass_time(0.2)
    stage.hands.work()
    assert stage.fed == [1]


def test_evidence_that_hangs_is_reported_without(stage):
    """The report does not wait beyond the time for evidence; what comes later is in the next one."""
    stage.expire(stage.worker(0, "reduce"))
    (task, done), stage.hands.tasks = stage.hands.tasks[0], []
    stage.pass_time(1.9)
    assert stage.hands.tasks == []
    stage.pass_time(0.2)
    stage.hands.work()
    assert stage.last().workers[0].evidence is None
    done(task())
    stage.pass_time(1.0)
    stage.hands.work()
    assert stage.last().workers[0].evidence == FOUND


def test_of_a_crowd_there_is_evidence_of_as_many_as_fit(stage):
    """Of the others there is a word that no time was left, and nothing is looked at while signals are sent."""
    members = [stage.expire(stage.worker(rank, f"step {rank}")) for rank in range(20)]
    for member in members:
        member.until = stage.clock.now() + 1.0
    stage.incidents.hurry(members)
    stage.hands.work(5)
    stage.clock.jump(0.95)
    stage.hands.work()
    assert len(stage.gathered) == 5
    stage.pass_time(0.1)
    stage.hands.work()
    seen = [worker.evidence for worker in stage.last().workers]
    assert seen.count(FOUND) == 5
    assert sum("no time was left" in evidence.without[0] for evidence in seen if evidence != FOUND) == 15


def test_without_evidence_nothing_comes_before_the_signal(monkeypatch):
    """The report is made afterwards, from what the pages say."""
    stage = Scene(monkeypatch, evidence=0.0)
    stage.expire(stage.worker(0, "reduce"))
    assert stage.fed == [1]
    stage.hands.work()
    assert stage.gathered == []
    assert stage.last().workers[0].blocks[0].scope == "reduce"


def test_the_last_report_is_complete(stage):
    """It comes when nothing more will be done about any of them; the loop has nothing to do until then."""
    member = stage.expire(stage.worker(0, "reduce"))
    stage.hands.work()
    assert not stage.last().complete
    assert stage.incidents.wait_time() > 5
    member.stage, member.outcome = Stage.OVER, "killed"
    stage.incidents.changed(member.watched)
    stage.pass_time(stage.incidents.wait_time())
    stage.hands.work()
    assert stage.last().complete
    assert stage.last().workers[0].outcome == "killed"
    stage.pass_time(JOIN)
    assert stage.incidents.wait_time() == float("inf")


def test_a_pretimeout_is_reported_and_grows_into_the_expiry(stage):
    """The evidence that was recorded early, and that of the expiry, are one incident."""
    watched = stage.worker(0, "step", left=2.0)
    stage.incidents.noticed(watched, [Expired("step", 7.0, -2.0, 5.0)], expired=False)
    stage.hands.work()
    assert stage.gathered == [("step", True)]
    assert not stage.last().workers[0].expired
    stage.clock.jump(2.0)
    stage.found["step", False] = FOUND
    stage.expire(watched)
    stage.hands.work()
    assert stage.last().workers[0].expired
    assert len({findings.id for findings in stage.reports}) == 1
