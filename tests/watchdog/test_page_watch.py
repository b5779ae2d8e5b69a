"""The watch over pages: when it looks, whom it spares, and what it does when a kill does not work."""

import pytest

from unhang._core.page import DEADLINE, NEVER, SEQUENCE, TIMEOUT, PageWriter, label
from unhang._core.page_reader import PageReader
from unhang._core.timer_reader import TimerReader
from unhang._watchdog.kill import Outcome
from unhang._watchdog.page_watch import BEAT, PageWatch
from unhang._watchdog.watched import Expired, Watched
from unhang.testing import ManualClock

SECOND = 10**9


class Written(Watched):
    """A worker whose page the test writes."""

    __slots__ = ("page",)


class Stage:
    """A watch whose kills end as the test says, and workers that write their pages by hand."""

    def __init__(self):
        self.clock = ManualClock()
        self.clock_began = self.clock.now_ns()
        self.outcome = Outcome.SIGNALLED
        self.held = False
        self.starved = 0.0
        self.before_kill = lambda: None
        self.kills = []
        self.told = []
        self.near = []
        self.damages = []
        self.prepared = []
        self.watch = PageWatch(self, self.clock)
        self.clock.drive(self.watch)

    def execute(self, worker, timers, still):
        self.before_kill()
        if self.held:
            return Outcome.HELD
        outcome = still()
        if outcome is not None:
            return outcome
        self.kills.append((worker.pid, [timer.scope for timer in timers]))
        return self.outcome

    def damaged(self, worker, why):
        self.damages.append((worker.pid, why))

    def look_early(self, worker):
        self.near.append(worker.pid)

    def prepare(self, worker, timers):
        self.prepared.append((worker.pid, [(timer.scope, round(timer.late, 6)) for timer in timers]))

    def could_not_run(self, worker, timer):
        return self.starved * timer.running

    def is_held(self, worker):
        return self.held

    def tell(self, event, worker, timers):
        self.told.append((event, worker and worker.pid))

    def worker(self, pid=7, *, observe=False):
        memory = bytearray(65536)
        page = PageWriter(memory)
        worker = Written(pid, None, TimerReader([PageReader(memoryview(memory), observed=observe)]))
        worker.page = page
        self.watch.join(worker)
        return worker

    def arm(self, worker, after, scope="step"):
        slot = worker.page.add_slot()
        label(slot, scope.encode(), int(after * SECOND))
        slot[SEQUENCE] = 1
        slot[DEADLINE] = self.clock.now_ns() + int(after * SECOND)
        if slot[DEADLINE] < worker.page.watched[0]:
            self.watch.look_at(worker)  # the kick
        return slot

    def wake(self, worker):
        return worker.page.watched[0] - self.clock.now_ns()


@pytest.fixture
def stage():
    return Stage()


def test_the_worker_is_told_when_the_watchdog_looks(stage):
    """Within a beat when nothing is armed, at the deadline when that is earlier."""
    worker = stage.worker()
    stage.clock.advance(0)
    assert 0 < stage.wake(worker) <= BEAT
    stage.arm(worker, 0.25)
    assert stage.wake(worker) == 0.25 * SECOND


def test_a_kick_that_was_lost_costs_a_beat(stage):
    """A deadline that nobody told of is seen at the next beat, before or behind it."""
    worker = stage.worker()
    stage.clock.advance(0)
    slot = worker.page.add_slot()
    label(slot, b"step", SECOND // 10)
    slot[SEQUENCE] = 1
    slot[DEADLINE] = stage.clock.now_ns() + SECOND // 10
    stage.clock.advance(0.5)
    assert stage.kills == []
    stage.clock.advance(0.5)
    assert stage.kills == [(7, ["step"])]


def test_timers_of_one_worker_that_expire_together_are_one_kill(stage):
    """The earliest first."""
    worker = stage.worker()
    stage.clock.advance(0)
    stage.arm(worker, 2.0, "late")
    stage.arm(worker, 1.5, "early")
    stage.clock.jump(2.0)
    stage.clock.work(0)
    stage.watch._presence.is_back()  # it was not asleep: the test jumped
    stage.clock.advance(0)
    assert stage.kills == [(7, ["early", "late"])]


def test_the_next_deadline_is_rehearsed_shortly_before_it(stage):
    """All is found out that the kill will need, and nobody is judged; for a deadline that is far away, nothing is."""
    first, second = stage.worker(1001), stage.worker(1002)
    stage.clock.advance(0)
    stage.arm(first, 0.5, "late")
    stage.arm(second, 0.2, "early")
    stage.clock.advance(0.1)
    stage.watch.rehearse()
    assert stage.prepared == []
    stage.clock.advance(0.097)
    stage.watch.rehearse()
    assert stage.prepared == [(1002, [("early", -0.003)])]
    assert (stage.kills, stage.told) == ([], [])
    stage.clock.advance(0.003)
    assert stage.kills == [(1002, ["early"])]


def test_who_is_dealt_with_already_is_not_rehearsed(stage):
    """Nor is a worker whose timer was disarmed meanwhile, or that has left."""
    stage.outcome = Outcome.PENDING
    gone, idle, pending = (stage.worker(pid) for pid in (1001, 1002, 1003))
    stage.clock.advance(0)
    stage.arm(pending, 0.1)
    stage.clock.advance(0.1)
    assert pending.pending
    stage.arm(gone, 0.1)
    stage.arm(idle, 0.1)[DEADLINE] |= NEVER
    stage.clock.advance(0.099)
    stage.watch.leave(gone)
    stage.watch.rehearse()
    assert stage.prepared == []


def test_other_workers_are_judged_by_their_own_timers(stage):
    """Two of three expire, each at its own deadline."""
    first, second, third = (stage.worker(pid) for pid in (1001, 1002, 1003))
    for worker, after in ((first, 3), (second, 1), (third, 10)):
        stage.arm(worker, after)
    stage.clock.advance(1)
    assert [pid for pid, _ in stage.kills] == [1002]
    stage.clock.advance(2)
    assert {pid for pid, _ in stage.kills} == {1001, 1002}


def test_time_in_which_nobody_looked_is_given_back(stage):
    """A watchdog that was stopped for ten seconds lets every timer that was armed have them again."""
    worker = stage.worker()
    stage.clock.advance(0)
    stage.arm(worker, 5)
    stage.clock.jump(10)
    stage.clock.advance(4.9)
    assert stage.kills == []
    assert ("overslept", None) in stage.told
    fresh = stage.worker(8)
    stage.arm(fresh, 3)
    stage.clock.advance(0.2)
    assert {pid for pid, _ in stage.kills} == {7}
    stage.clock.advance(2.9)
    assert {pid for pid, _ in stage.kills} == {7, 8}


def test_the_watchdogs_own_work_is_not_given_back(stage):
    """A watchdog that is kept busy was not away, or a flood would suspend all kills."""
    worker = stage.worker()
    stage.clock.advance(0)
    stage.arm(worker, 5)
    stage.watch.wait_time()
    stage.clock.work(10)
    stage.clock.advance(0)
    assert stage.kills == [(7, ["step"])]


def test_a_block_that_ends_in_the_last_moment_is_spared(stage):
    """Disarmed, or restarted, between the look and the kill: told as a near miss, and watched on."""
    worker = stage.worker()
    slot = stage.arm(worker, 2)

    def restart():
        slot[SEQUENCE] = 2
        slot[DEADLINE] = stage.clock.now_ns() + 2 * SECOND

    stage.before_kill = restart
    stage.clock.advance(2)
    assert stage.kills == []
    assert stage.told == [("near miss", 7)]
    stage.before_kill = lambda: None
    stage.clock.advance(2)
    assert stage.kills == [(7, ["step"])]


def test_a_watchdog_that_is_stopped_in_front_of_the_kill_reads_the_page_as_it_is_then(stage):
    """Whoever has left its block meanwhile lives; who hangs has had all its time before that, and is killed."""
    leaving, hanging = stage.worker(1001), stage.worker(1002)
    slot = stage.arm(leaving, 2)
    stage.arm(hanging, 2)

    def stop():
        stage.clock.jump(10)
        slot[DEADLINE] |= NEVER

    stage.before_kill = stop
    stage.clock.advance(2)
    assert {pid for pid, _ in stage.kills} == {1002}
    assert ("near miss", 1001) in stage.told


def test_an_observed_worker_is_told_once_and_not_killed(stage):
    """Each timer once; the next one again."""
    worker = stage.worker(observe=True)
    slot = stage.arm(worker, 2)
    stage.clock.advance(20)
    assert stage.told == [("expired", 7)]
    slot[DEADLINE] |= NEVER
    stage.arm(worker, 2)
    stage.clock.advance(20)
    assert stage.told == [("expired", 7)] * 2
    assert stage.kills == []


def test_a_worker_in_a_debugger_is_told_once_and_starts_over_when_it_is_let_go(stage):
    """Spared while it is held; then its block has all its time again, since nobody knows how much it had."""
    worker = stage.worker()
    stage.arm(worker, 2)
    stage.outcome = Outcome.HELD
    stage.held = True
    stage.clock.advance(10)
    assert stage.told == [("held", 7)]
    stage.held, stage.outcome = False, Outcome.SIGNALLED
    before = len(stage.kills)
    stage.clock.advance(1.9)
    assert len(stage.kills) == before
    stage.clock.advance(1.2)
    assert stage.told == [("held", 7), ("killed", 7)]


def test_a_kick_is_judged_behind_the_giving_back_of_time(stage):
    """A watchdog that was stopped with a kick in its socket does not kill for it before it counts the time."""
    worker = stage.worker()
    stage.clock.advance(0)
    stage.arm(worker, 5)
    stage.watch.wait_time()
    stage.clock.jump(10)
    stage.watch.kicked(worker)
    stage.clock.advance(0)
    assert stage.kills == []
    stage.clock.advance(5.1)
    assert {pid for pid, _ in stage.kills} == {7}


def test_a_kill_that_fails_is_tried_again_with_growing_pauses(stage):
    """Until it works, or for a minute and a half; then it is left."""
    worker = stage.worker()
    stage.arm(worker, 2)
    stage.outcome = Outcome.FAILED
    stage.clock.advance(300)
    assert stage.told == [("failed", 7)] * 12
    assert len(stage.kills) == 12


def test_failed_kills_of_one_block_do_not_count_against_the_next(stage):
    """A worker that got over a block in which it could not be killed is tried as often in another one."""
    worker = stage.worker()
    slot = stage.arm(worker, 2)
    stage.outcome = Outcome.FAILED
    stage.clock.advance(300)
    slot[DEADLINE] |= NEVER
    stage.clock.advance(2)
    stage.told.clear()
    stage.arm(worker, 2)
    stage.clock.advance(300)
    assert stage.told == [("failed", 7)] * 12


def test_a_protected_process_is_told_once(stage):
    """The rules forbid it: there is nothing to try again."""
    worker = stage.worker()
    stage.arm(worker, 2)
    stage.outcome = Outcome.REFUSED
    stage.clock.advance(300)
    assert stage.told == [("refused", 7)]


def test_a_worker_that_left_is_not_judged(stage):
    """Its timers go with it."""
    worker = stage.worker()
    stage.arm(worker, 2)
    stage.watch.leave(worker)
    stage.watch.leave(worker)
    stage.clock.advance(10)
    assert stage.kills == []
    assert stage.watch.workers == []


def test_it_knows_whether_anybody_ever_armed_a_timer(stage):
    """Also when the worker is gone by then."""
    worker = stage.worker()
    assert not stage.watch.was_armed
    worker.page.add_slot()
    stage.watch.leave(worker)
    assert stage.watch.was_armed


def test_nonsense_in_a_page_is_no_timer(stage):
    """Deadlines of 0 and below are not armed, and do not make the watchdog turn round and round."""
    worker = stage.worker()
    for deadline in (0, -5):
        worker.page.add_slot()[DEADLINE] = deadline
    stage.clock.advance(5)
    assert stage.kills == []
    assert stage.watch.wait_time() > 0


def test_a_worker_with_short_timers_kicks_once_a_timeout(stage):
    """Blocks in a tight loop, each of a tenth of a second: the watchdog looks ten times a second, not each time."""
    worker = stage.worker()
    stage.clock.advance(0)
    slot = worker.page.add_slot()
    label(slot, b"step", SECOND // 10)
    kicks = 0
    for _ in range(3000):
        slot[SEQUENCE] += 1
        slot[DEADLINE] = stage.clock.now_ns() + SECOND // 10
        if slot[DEADLINE] < worker.page.watched[0]:
            kicks += 1
            stage.watch.look_at(worker, again_soon=True)
        stage.clock.advance(0.001)
        slot[DEADLINE] |= NEVER
    assert kicks < 40
    assert stage.kills == []


def test_a_worker_is_looked_at_early_only_when_its_deadline_stays(stage):
    """One that arms short timers again and again is not looked at each second."""
    worker = stage.worker()
    slot = stage.arm(worker, 3.0)
    stage.clock.advance(2.9)
    assert stage.near == [worker.pid]
    stage.near.clear()
    for _ in range(30):
        slot[DEADLINE] = stage.clock.now_ns() + SECOND
        stage.clock.advance(0.2)
    assert stage.near == []


def test_a_pretimeout_is_told_once_and_at_its_time(stage):
    """Of each timer of its own; not of one that is armed with less time than that."""
    worker = stage.worker()
    for after, before, scope in ((5.0, 2.0, "long"), (1.5, 2.0, "short")):
        slot = worker.page.add_slot()
        label(slot, scope.encode(), int(after * SECOND), pretimeout=int(before * SECOND))
        slot[SEQUENCE] = 1
        slot[DEADLINE] = stage.clock.now_ns() + int(after * SECOND)
        worker.page.raise_pretimeout(int(before * SECOND))
        stage.watch.look_at(worker)
    stage.clock.advance(1.4)
    assert stage.told == []
    slot[DEADLINE] |= NEVER
    stage.clock.advance(1.5)
    assert stage.told == []
    stage.clock.advance(1.2)
    assert stage.told == [("pretimeout", worker.pid)]
    assert stage.kills == []


def test_thousands_of_pretimeouts_at_once_do_not_keep_the_loop_busy(stage):
    """What is not told at once is told a beat later."""
    worker = stage.worker()
    worker.timers.close()
    memory = bytearray(1 << 20)
    page = PageWriter(memory)
    worker.timers.add(PageReader(memoryview(memory)))
    page.raise_pretimeout(27 * SECOND)
    for number in range(3000):
        slot = page.add_slot()
        label(slot, str(number).encode(), 30 * SECOND, pretimeout=27 * SECOND)
        slot[SEQUENCE] = 1
        slot[DEADLINE] = stage.clock.now_ns() + 30 * SECOND
    stage.watch.look_at(worker)
    stage.clock.advance(3.1)
    looks, look_at = [], stage.watch.look_at
    stage.watch.look_at = lambda *args, **options: (looks.append(1), look_at(*args, **options))
    stage.clock.advance(5)
    assert len(looks) < 20
    assert len(worker.early) == 3000


def test_what_is_pending_is_not_judged_again_until_it_is_settled(stage):
    """One escalation at a time; spared, it is watched as before."""
    worker = stage.worker()
    slot = stage.arm(worker, 1)
    stage.outcome = Outcome.PENDING
    stage.clock.advance(3)
    assert len(stage.kills) == 1
    assert [timer.scope for timer in stage.watch.recheck(worker, [])] == ["step"]
    slot[DEADLINE] |= NEVER
    assert stage.watch.recheck(worker, []) is Outcome.SPARED
    stage.watch.settle(worker, Outcome.SPARED, [])
    assert stage.told == [("near miss", worker.pid)]
    stage.arm(worker, 1, "next")
    stage.clock.advance(2)
    assert len(stage.kills) == 2


def test_a_recheck_says_what_has_become_of_the_timers(stage):
    """Still armed; given time back, since its worker could not run; left."""
    worker = stage.worker()
    slot = stage.arm(worker, 4)
    stage.outcome = Outcome.PENDING
    judged = []
    stage.before_kill = lambda: judged.extend(stage.watch._killable(worker, stage.watch.now()))
    stage.clock.advance(4)
    timers = [Expired("step", 4.0, 0.0, 4.0, seen=judged[0][0])]
    assert [timer.scope for timer in stage.watch.recheck(worker, timers)] == ["step"]
    stage.starved = 0.5
    assert stage.watch.recheck(worker, timers) is Outcome.LATER
    slot[DEADLINE] |= NEVER
    assert stage.watch.recheck(worker, timers) is Outcome.SPARED


def test_a_watchdog_that_is_always_late_ends_whoever_hangs(stage):
    """Time is given back for as long as the timeout, or two seconds; nothing is told of a block that was not left."""
    worker = stage.worker()
    stage.arm(worker, 3)
    for _ in range(20):
        if stage.kills:
            break
        stage.clock.jump(1.4)
        stage.clock.advance(0)
    assert stage.kills == [(7, ["step"])]
    assert stage.watch.now() - stage.clock_began <= 8 * SECOND
    assert {event for event, _ in stage.told} == {"overslept", "killed"}


def test_a_worker_that_could_not_run_gets_that_back_within_bounds(stage):
    """Half of its time it waited for a processor: it has as much again, and then it is judged as all others are."""
    worker = stage.worker()
    stage.arm(worker, 4)
    stage.starved = 0.5
    stage.clock.advance(4)
    assert stage.kills == []
    stage.clock.advance(3.9)
    assert stage.kills == []
    stage.clock.advance(0.15)
    assert stage.kills == [(7, ["step"])]
    assert stage.told == [("killed", 7)]


def test_a_page_that_others_wrote_into_ends_nobody(stage):
    """What no timer is, is told once and is no reason to kill; a good timer beside it still is."""
    worker = stage.worker()
    stage.clock.advance(0)
    bad = stage.arm(worker, 1, "bad")
    stage.arm(worker, 2, "good")
    bad[TIMEOUT] = NEVER
    stage.clock.advance(1.5)
    assert (stage.kills, stage.damages) == ([], [(7, "a deadline lies before its own arming")])
    stage.clock.advance(1)
    assert stage.kills[:1] == [(7, ["good"])]
    assert len(stage.damages) == 1


def test_a_worker_whose_clock_is_behind_has_all_its_time(stage):
    """A timer that was not there a beat ago was armed since, whatever its deadline says."""
    worker = stage.worker()
    stage.clock.advance(2)
    slot = worker.page.add_slot()
    label(slot, b"behind", 10 * SECOND)
    slot[SEQUENCE] = 1
    slot[DEADLINE] = stage.clock.now_ns() - 5000 * SECOND
    stage.clock.advance(9)
    assert stage.kills == []
    stage.clock.advance(1.5)
    assert stage.kills[:1] == [(7, ["behind"])]


def test_a_starved_worker_that_leaves_its_block_lives(stage):
    """In the time that it was given back."""
    worker = stage.worker()
    slot = stage.arm(worker, 4)
    stage.starved = 0.5
    stage.clock.advance(5)
    slot[DEADLINE] |= NEVER
    stage.clock.advance(20)
    assert (stage.kills, stage.told) == ([], [])


def crowd(stage, worker, count, after, *, observed=False):
    """So many timers more, in a page of their own."""
    memory = bytearray(1 << 20)
    page = PageWriter(memory)
    worker.timers.add(PageReader(memoryview(memory), observed=observed))
    for number in range(count):
        slot = page.add_slot()
        label(slot, f"handler {number}".encode(), int(after * SECOND))
        slot[SEQUENCE] = 1
        slot[DEADLINE] = stage.clock.now_ns() + int(after * SECOND)


def counted_looks(stage):
    """The looks at workers from now on."""
    looks, look_at = [], stage.watch.look_at

    def look(worker, **options):
        looks.append(worker)
        assert len(looks) < 100, "it keeps the loop busy"
        look_at(worker, **options)

    stage.watch.look_at = look
    return looks


def test_thousands_that_get_time_back_hide_nobody(stage):
    """Their deadlines are over, but not with what they get back: a timer that has expired is found among them."""
    worker = stage.worker()
    stage.clock.advance(0)
    crowd(stage, worker, 3000, 5)
    stage.watch.look_at(worker)
    stage.clock.jump(30)  # the host is paused
    stage.clock.advance(0)
    counted_looks(stage)
    stage.arm(worker, 1.0, "expires")
    stage.clock.advance(2.0)
    assert stage.kills[0] == (7, ["expires"])


def test_thousands_that_are_observed_only_hide_nobody(stage):
    """The worker is killed for the timer of another client all the same."""
    worker = stage.worker()
    stage.clock.advance(0)
    crowd(stage, worker, 3000, 1, observed=True)
    stage.arm(worker, 1.0, "expires")
    stage.watch.look_at(worker)
    counted_looks(stage)
    stage.clock.advance(1.5)
    assert (7, ["expires"]) in stage.kills
    assert stage.told[0] == ("expired", 7)


def test_of_thousands_that_expire_together_the_first_is_the_one_named(stage):
    """A worker is told with a thousand of them, the earliest first; and while it is dealt with, nothing is busy."""
    worker = stage.worker()
    stage.clock.advance(0)
    crowd(stage, worker, 3000, 0.5)
    stage.watch.look_at(worker)
    slot = worker.page.add_slot()
    label(slot, b"first", SECOND // 4)
    slot[SEQUENCE] = 1
    slot[DEADLINE] = stage.clock.now_ns() + SECOND // 4  # and the kick is lost
    stage.outcome = Outcome.PENDING
    counted_looks(stage)
    stage.clock.advance(7)
    ((_, scopes),) = stage.kills
    assert (scopes[0], len(scopes)) == ("first", 1000)


def test_a_held_worker_with_thousands_of_expired_timers_does_not_keep_the_loop_busy(stage):
    """A debugger holds it: it is looked at once a second."""
    worker = stage.worker()
    stage.clock.advance(0)
    crowd(stage, worker, 3000, 1)
    stage.watch.look_at(worker)
    stage.held = True
    counted_looks(stage)
    stage.clock.advance(10)
    assert stage.told == [("held", 7)]
