"""The watch over workers: real processes, a clock moved by hand."""

import errno
import math
import os
import signal
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workers
from support import until
from unhang._core import retries
from unhang._platform import process
from unhang._platform.waiter import Waiter
from unhang._watchdog import watch as watch_module
from unhang._watchdog.watch import BEAT, Watch
from unhang._watchdog.workers import DYING
from unhang.api import TimerRequest
from unhang.testing import ManualClock


class Sight:
    """A watch, its clock and its waiter."""

    def __init__(self):
        self.clock = ManualClock()
        self.waiter = Waiter()
        self.exits = []
        self.watch = Watch(self.waiter, self.exits.append, self.clock)

    def arm(self, pid, after=10.0, scope="scope"):
        self.watch.register(TimerRequest(pid, scope, self.clock.wall() + after))

    def expired(self):
        return self.watch.expired(self.watch.wall.read())

    def is_due(self):
        return self.watch.is_due(self.watch.wall.read())


@pytest.fixture
def sight():
    return Sight()


@pytest.fixture
def worker(start):
    worker = start(workers.idle)
    worker.heard()
    return worker


def test_a_timer_expires_at_its_deadline(sight, worker):
    """Not before, and from then on."""
    sight.arm(worker.pid, 10)
    sight.clock.advance(9.99)
    assert sight.expired() == {}
    assert not sight.is_due()
    sight.clock.advance(0.01)
    assert list(sight.expired()) == [worker.pid]
    assert sight.is_due()


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_step_of_the_wall_clock_changes_nothing(sight, worker, step):
    """Nobody expires early, nobody late."""
    sight.arm(worker.pid, 10)
    sight.clock.step_wall(step)
    sight.clock.advance(9.9)
    assert sight.expired() == {}
    sight.clock.advance(0.2)
    assert list(sight.expired()) == [worker.pid]


def test_the_wait_ends_at_the_next_deadline(sight, worker):
    """It is the time to the next deadline, the longest wait asked for, or a second, whichever is shortest."""
    assert sight.watch.wait_time(60) == BEAT
    assert sight.watch.wait_time(0.5) == 0.5
    sight.arm(worker.pid, 0.25)
    assert sight.watch.wait_time(60) == pytest.approx(0.25)
    sight.clock.advance(5)
    assert sight.watch.wait_time(60) == 0


def test_time_in_which_nobody_looked_is_given_back(sight, worker):
    """A watchdog that was stopped for a minute does not kill whoever was due in that minute."""
    sight.arm(worker.pid, 10)
    sight.watch.wait_time(60)
    sight.clock.advance(60)
    sight.watch.look()
    assert sight.expired() == {}
    sight.clock.advance(10.1)
    assert list(sight.expired()) == [worker.pid]


def test_a_watchdog_that_is_always_late_ends_whoever_hangs(sight, worker):
    """Time is given back for as long as the timeout, or two seconds: then the worker has expired."""
    sight.arm(worker.pid, 3)
    began = sight.clock.now()
    while not sight.expired() and sight.clock.now() < began + 60:
        sight.watch.wait_time(60)
        sight.clock.jump(1.4)
        sight.watch.look()
    assert 6 <= sight.clock.now() - began <= 8


def test_a_watchdog_that_is_busy_gives_nothing_back(sight, worker):
    """Requests that keep it at work for a minute do not make everybody's deadline a minute later."""
    sight.arm(worker.pid, 10)
    sight.watch.wait_time(60)
    sight.clock.work(60)
    sight.watch.look()
    assert list(sight.expired()) == [worker.pid]


def test_a_pause_while_somebody_is_killed_is_given_back_too(sight, worker):
    """The time between a look and the next wait is watched as well."""
    sight.arm(worker.pid, 10)
    sight.watch.look()
    sight.clock.advance(60)
    sight.watch.wait_time(60)
    sight.watch.look()
    assert sight.expired() == {}


def test_what_is_due_after_the_instant_of_judgement_is_not_judged(sight, worker):
    """A release may come while the pipe is read for the last time: only what was due before that counts."""
    sight.arm(worker.pid, 10)
    sight.clock.advance(9.9)
    judged_by = sight.watch.look()
    sight.clock.advance(0.2)
    assert not sight.watch.is_due(judged_by)
    assert sight.watch.expired(judged_by) == {}


def test_a_scope_that_cannot_be_hashed_without_harm_is_dropped(sight, worker):
    """A scope is a string: a tuple in a tuple in a tuple, and so on, would overflow the stack."""
    scope = ()
    for _ in range(200_000):
        scope = (scope,)
    sight.watch.register(TimerRequest(worker.pid, scope, 5.0))
    assert sight.watch.dropped.counts == {"bad scope": 1}


def test_a_worker_that_cannot_be_identified_is_told(sight, worker, monkeypatch):
    """Short of descriptors we cannot tell who it is: its request is dropped and counted, and a kill is tried again."""
    shortage = OSError(errno.EMFILE, "too many open files")
    with monkeypatch.context() as context:
        context.setattr("unhang._platform.process.facts", mock.Mock(side_effect=shortage))
        sight.arm(worker.pid)
    assert sight.watch.dropped.counts == {"worker not identified": 1}
    sight.arm(worker.pid)
    with monkeypatch.context() as context:
        context.setattr("unhang._platform.process._read", mock.Mock(side_effect=shortage))
        assert not sight.watch.kill(worker.pid, signal.SIGKILL)
    assert worker.runs()


def test_ancestors_that_cannot_be_told_are_not_taken_for_none(monkeypatch):
    """Short of descriptors, the rule that protects them is not checked by a part of the list."""
    monkeypatch.setattr("unhang._platform.process._stat", mock.Mock(side_effect=OSError(errno.EMFILE, "too many")))
    with pytest.raises(OSError, match="too many"):
        process.me(fresh=True)


def test_a_process_that_is_killed_is_the_one_that_asked(sight, worker):
    """Its signal arrives, and what it had sent before is ignored from then on."""
    sight.arm(worker.pid)
    assert sight.watch.kill(worker.pid, signal.SIGKILL)
    sight.watch.clear(worker.pid)
    sight.arm(worker.pid, scope="sent before it was killed")
    assert len(sight.watch.timers) == 0
    assert worker.ended() == -signal.SIGKILL
    sight.waiter.wait(0)
    assert sight.exits == [worker.pid]


def test_a_worker_that_survives_its_signal_is_watched_on(sight, start):
    """Only SIGKILL is certain: after another signal new timers count."""
    worker = start(ignore_term)
    worker.heard()
    sight.arm(worker.pid)
    assert sight.watch.kill(worker.pid, signal.SIGTERM)
    sight.watch.clear(worker.pid)
    sight.arm(worker.pid)
    assert len(sight.watch.timers) == 1


def ignore_term(say):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    workers.idle(say)


def test_nobody_is_killed_for_a_worker_that_is_gone(sight, worker):
    """A timer of a process that has exited ends with nobody signalled, and counts as reaped."""
    sight.arm(worker.pid)
    worker.end()
    assert sight.watch.kill(worker.pid, signal.SIGKILL)


def test_a_pid_that_was_nobodys_stays_nobodys(sight, worker, monkeypatch):
    """A request for a pid without a process does not kill whoever has the pid at the deadline."""
    with monkeypatch.context() as context:
        context.setattr("unhang._watchdog.workers.ProcessHandle.open", lambda _pid: None)
        sight.arm(worker.pid)
        sight.arm(worker.pid, scope="another")
    assert len(sight.watch.timers) == 2
    assert sight.watch.kill(worker.pid, signal.SIGKILL)
    assert worker.runs()


def test_a_new_process_does_not_inherit_the_timers_of_its_pid(sight, worker, monkeypatch):
    """What was armed under the pid by somebody else goes when the new owner sends its first request."""
    with monkeypatch.context() as context:
        context.setattr("unhang._watchdog.workers.ProcessHandle.open", lambda _pid: None)
        sight.arm(worker.pid, scope="of the old one")
    sight.arm(worker.pid, scope="of the new one")
    assert list(sight.watch.timers) == [(worker.pid, "of the new one")]


def test_requests_for_nobody_leave_nothing_behind(sight):
    """Arming and disarming for pids that do not exist does not pile up."""
    for pid in range(2**22 - 100, 2**22):
        sight.arm(pid)
        sight.watch.register(TimerRequest(pid, "scope", -1))
    assert len(sight.watch.timers) == 0
    assert sight.watch.workers._workers == {}


@pytest.mark.parametrize("pid", [0, 1, -1, "self", "parent", "own group"])
def test_protected_processes_are_refused(sight, pid):
    """A request that names one of them is dropped, counted, and a kill sends nothing."""
    pid = {"self": os.getpid(), "parent": os.getppid(), "own group": -os.getpgid(0)}.get(pid, pid)
    sight.arm(pid)
    assert len(sight.watch.timers) == 0
    assert sight.watch.dropped.counts == {"refused": 1}
    assert not sight.watch.kill(pid, signal.SIGKILL)


def test_another_users_process_is_refused(sight, start, other_user):
    """Root's server does not kill users' processes."""
    worker = start(workers.as_user, other_user, workers.idle)
    worker.heard()
    sight.arm(worker.pid)
    assert sight.watch.dropped.counts == {"refused": 1}
    assert not sight.watch.kill(worker.pid, signal.SIGKILL)
    assert worker.runs()


def test_a_worker_that_changes_its_user_is_refused_when_it_expires(sight, start, other_user):
    """The rules hold at the kill, not only at the first request."""
    worker = start(workers.idle)
    worker.heard()
    sight.arm(worker.pid)
    sight.watch.workers.get(worker.pid).handle.facts = lambda: start_as(worker.pid, other_user)
    assert not sight.watch.kill(worker.pid, signal.SIGKILL)
    assert worker.runs()


def start_as(pid, user):
    from unhang._core.rules import Facts

    return Facts(pid=pid, group=pid, user=user, start_time=1.0)


def test_a_worker_in_a_debugger_is_spared_until_it_is_let_go(sight, worker, monkeypatch, caplog):
    """It is looked at again every second, for as long as it takes, and that is told once."""
    sight.arm(worker.pid, 10)
    sight.clock.advance(10)
    held = sight.watch.workers.get(worker.pid).handle.facts()
    with monkeypatch.context() as context:
        context.setattr(
            "unhang._platform.process.ProcessHandle.facts", lambda _self: held.__class__(**fields(held, tracer=1))
        )
        for _ in range(retries.ATTEMPTS * 2):
            assert list(sight.expired()) == [worker.pid]
            assert not sight.watch.kill(worker.pid, signal.SIGKILL)
            sight.watch.retry_later(worker.pid)
            assert sight.expired() == {}
            sight.clock.advance(watch_module.HELD_PAUSE)
    assert caplog.text.count("debugger holds it") == 1
    assert sight.watch.kill(worker.pid, signal.SIGKILL)
    assert worker.ended() == -signal.SIGKILL


def fields(facts, **changes):
    return {name: getattr(facts, name) for name in facts.__slots__} | changes


def test_what_cannot_be_reaped_is_tried_again_and_given_up(sight, worker):
    """With growing pauses, a bounded number of times; then its timers are dropped."""
    sight.arm(worker.pid, 10)
    sight.clock.advance(10)
    tries = 0
    while len(sight.watch.timers):
        tries += bool(sight.expired())
        if sight.expired():
            sight.watch.retry_later(worker.pid)
        sight.clock.advance(0.1)
    assert tries == retries.ATTEMPTS


def test_a_worker_that_disarms_while_it_is_retried_is_spared(sight, worker):
    """The pause between two attempts is time to finish."""
    sight.arm(worker.pid, 10)
    sight.clock.advance(10)
    sight.watch.retry_later(worker.pid)
    sight.watch.register(TimerRequest(worker.pid, "scope", -1))
    sight.clock.advance(100)
    assert sight.expired() == {}


@pytest.mark.parametrize(
    "request_",
    [
        TimerRequest("4711", "s", 1),
        TimerRequest(4711, (), 1),
        TimerRequest.__new__(TimerRequest),
        TimerRequest(4711, "s", float("nan")),
    ],
)
def test_a_request_that_is_none_is_dropped_alone(sight, worker, request_):
    """It is counted, and the next one is registered."""
    sight.watch.register(request_)
    sight.arm(worker.pid)
    assert len(sight.watch.timers) == 1
    assert sum(sight.watch.dropped.counts.values()) == 1


def test_workers_that_come_and_go_leave_no_descriptor(sight, start):
    """The pidfd of a worker is closed when it has exited and is cleared."""
    sight.waiter.wait(0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        worker = start(workers.idle, method="fork")
        worker.heard()
        sight.arm(worker.pid)
        worker.end()
        sight.waiter.wait(0)
        sight.watch.clear(worker.pid)
    until(lambda: len(os.listdir("/proc/self/fd")) <= before, lambda: sight.waiter.wait(0))
    assert sight.watch.workers._workers == {}


def test_a_killed_process_group_is_heard_again_after_a_while(sight):
    """A group has no exit to wait for: its late requests are ignored for some seconds."""
    sight.arm(-3)
    worker = sight.watch.workers.get(-3)
    worker.killed_at = sight.clock.now()
    sight.watch.clear(-3)
    sight.arm(-3)
    assert len(sight.watch.timers) == 0
    sight.clock.advance(DYING + 0.1)
    sight.arm(-3)
    assert len(sight.watch.timers) == 1


REQUESTS = st.lists(
    st.tuples(st.sampled_from(["one", "two", 5, None]), st.sampled_from([-1, 10.0, 20.0, math.nan, "soon", None])),
    max_size=8,
)


@given(REQUESTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_requests_at_once_are_as_one_after_the_other(worker, requests):
    """The same timers are armed, with the same deadlines, and the same faults are counted."""
    one_by_one, at_once = Sight(), Sight()
    made = [TimerRequest(worker.pid, scope, at) for scope, at in requests] + [SimpleNamespace(worker_id=worker.pid)]
    for request in made:
        one_by_one.watch.register(request)
    at_once.watch.register_all(made)
    assert sorted(one_by_one.watch.timers) == sorted(at_once.watch.timers)
    assert sorted(deadline for deadline, _ in one_by_one.watch.timers.items()) == sorted(
        deadline for deadline, _ in at_once.watch.timers.items()
    )
    assert dict(one_by_one.watch.dropped.counts) == dict(at_once.watch.dropped.counts)
    for sight in (one_by_one, at_once):
        sight.watch.close()


def test_each_request_of_a_refused_worker_is_counted(sight):
    """Though who it is, is found out once."""
    sight.watch.register_all([TimerRequest(1, "scope", sight.clock.wall() + 10) for _ in range(3)])
    assert dict(sight.watch.dropped.counts) == {"refused": 3}


def test_a_deadline_of_an_expiration_time_that_was_changed_is_not_used(sight, worker):
    """The one that a request was received with counts as long as it says the same."""
    request = TimerRequest(worker.pid, "scope", sight.clock.wall() + 10)
    request._received = (request.expiration_time, sight.clock.now() + 5)
    sight.watch.register_all([request])
    assert sight.watch.timers.next_deadline() == sight.clock.now() + 5
    request.expiration_time += 600
    sight.watch.register_all([request])
    assert sight.watch.timers.next_deadline() == pytest.approx(sight.clock.now() + 610)
