"""A worker's timers as reports have them: whatever else is armed, the expired one is in it, and is the one named."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from unhang._watchdog.kill import Outcome
from unhang._watchdog.page_watch import PageWatch
from unhang._watchdog.timers import Timers
from unhang._watchdog.watched import Watched
from unhang._worker.client import SharedTimerClient
from unhang.report.about import block_of
from unhang.report.headline import headline
from unhang.report.model import Report, Verdict, Worker
from unhang.testing import ManualClock, _Memory

SECOND = 10**9
# More than a report holds, than a page holds, and than several pages hold.
MANY = st.sampled_from([0, 1, 49, 300, 1500])


def worker_of(timers, expired):
    """As a report has it."""
    return Worker(
        pid=7,
        expired=expired,
        armed=timers.total,
        sequence=timers.sequence,
        blocks=timers.blocks(timers.at / SECOND),
        finished=timers.left_blocks(timers.at / SECOND),
    )


class Crowd(RuleBasedStateMachine):
    """A process with some clients, whose timers are armed and left in any order, until one of them expires."""

    def __init__(self):
        super().__init__()
        self.clock = ManualClock()
        self.watch = PageWatch(self, self.clock)
        self.worker = Watched(7)
        self.watch.join(self.worker)
        self.clients = [SharedTimerClient._over(_Memory(self.watch, self.worker), self.clock.now_ns) for _ in range(3)]
        self.clock.drive(self.watch)
        self.armed = []  # timers, with their scopes and deadlines
        self.left = 0
        self.judged = []

    # What the watch has done for it.

    def execute(self, worker, timers, still):
        assert still() is None
        self.judged.append((worker, timers, Timers.of(worker, self.clock.now_ns(), timers)))
        return Outcome.GONE

    def damaged(self, worker, why): ...

    def look_early(self, worker): ...

    def prepare(self, worker, timers): ...

    def could_not_run(self, worker, timer):
        return 0.0

    def is_held(self, worker):
        return False

    def tell(self, event, worker, timers): ...

    def arm(self, client, scope, after):
        timer = self.clients[client].timer(after, scope)
        timer.__enter__()
        self.armed.append((timer, scope, self.clock.now_ns() + int(after * SECOND)))

    @initialize(count=MANY, client=st.integers(0, 2))
    def fill(self, count, client):
        """Handlers that came before."""
        for number in range(count):
            self.arm(client, f"handler {number % 7}", 20 + number % 3)

    @rule(client=st.integers(0, 2), scope=st.sampled_from("abcdef"), after=st.sampled_from([1, 2, 3, 5, 8, 25]))
    def enter(self, client, scope, after):
        """A block, in whatever thread, nested or not."""
        self.clock.advance(0.001)
        self.arm(client, scope, after)

    @rule(count=st.sampled_from([10, 49, 300]), client=st.integers(0, 2))
    def enter_many(self, count, client):
        """A burst of handlers."""
        self.clock.advance(0.001)
        self.fill(count, client)

    @precondition(lambda self: self.armed)
    @rule(data=st.data())
    def leave(self, data):
        """One of them, not only the inner one."""
        timer, _, _ = self.armed.pop(data.draw(st.integers(0, len(self.armed) - 1)))
        timer.__exit__(None, None, None)

    @precondition(lambda self: len(self.armed) > 60)
    @rule(first=st.booleans())
    def leave_many(self, first):
        """A burst ends: slots that are used again, and many that were left last."""
        going = self.armed[:55] if first else self.armed[-55:]
        self.armed = self.armed[55:] if first else self.armed[:-55]
        for timer, _, _ in going:
            timer.__exit__(None, None, None)

    @precondition(lambda self: self.armed)
    @rule(lost=st.sampled_from([0, 0, 4]))
    def expire(self, lost):
        """The first of them, whichever it is; the host may have been paused before."""
        self.clock.jump(lost)
        self.clock.advance(0)
        for _ in range(100):
            if self.judged:
                break
            self.clock.advance(1)
        assert self.judged

    @invariant()
    def what_has_expired_is_what_is_named(self):
        """In the report's blocks and in its headline, as in the events; and then its block is left."""
        judged, self.judged = self.judged, []
        for worker, timers, seen in judged:
            assert worker is self.worker
            reported = worker_of(seen, expired=True)
            block = block_of(reported)
            assert (block.scope, block.expired, block.due) == (timers[0].scope, True, True)
            report = Report(id="x", time="", workers=(reported,), verdict=Verdict(culprits=(7,)))
            assert f"hangs in '{timers[0].scope}' for" in headline(report)
            over = {timer.seen.deadline for timer in timers}
            for entry in [entry for entry in self.armed if entry[2] in over]:
                self.armed.remove(entry)
                entry[0].__exit__(None, None, None)

    @invariant()
    def it_is_one_worker_whose_timers_are_all_counted(self):
        """However many pages and clients; and what is taken down of it is bounded."""
        assert self.watch.workers == [self.worker]
        seen = Timers.of(self.worker, self.clock.now_ns())
        assert seen.total == len(self.armed)
        assert len(seen.armed) <= 48
        assert len(seen.finished) <= 16

    def teardown(self):
        """No timer is dropped."""
        for timer, _, _ in self.armed:
            timer.__exit__(None, None, None)


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=25, stateful_step_count=10)
