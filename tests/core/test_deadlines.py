"""The table of deadlines against a plain model."""

import math

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from unhang._core.deadlines import DeadlineTable

workers = st.integers(1, 4)
scopes = st.sampled_from("abc")
instants = st.floats(-1e6, 1e6) | st.just(math.inf)


class TableAgainstModel(RuleBasedStateMachine):
    """Whatever is done to the table, it holds what a dict of deadlines would hold."""

    def __init__(self):
        super().__init__()
        self.table = DeadlineTable()
        self.table._TOLERATED = 5
        self.model = {}
        self.asked = {}  # the deadlines that they were armed with

    @rule(worker=workers, scope=scopes, deadline=instants)
    def arm(self, worker, scope, deadline):
        self.table.arm(worker, scope, deadline, (worker, scope), armed_at=7)
        self.model[worker, scope] = self.asked[worker, scope] = deadline

    @rule(worker=workers, scope=scopes)
    def disarm(self, worker, scope):
        assert self.table.disarm(worker, scope) == (self.model.pop((worker, scope), None) is not None)

    @rule(worker=workers)
    def disarm_worker(self, worker):
        gone = [key for key in self.model if key[0] == worker]
        assert self.table.disarm_worker(worker) == len(gone)
        for key in gone:
            del self.model[key]

    @rule(worker=workers, until=st.floats(-1e6, 1e6))
    def postpone(self, worker, until):
        self.table.postpone(worker, until)
        for key, deadline in self.model.items():
            if key[0] == worker and deadline < until:
                self.model[key] = until
                self.asked.pop(key, None)

    @rule(now=st.floats(-1e6, 1e6), seconds=st.integers(-10, 1000))
    def credit(self, now, seconds):
        # What was postponed gets nothing back.
        self.table.credit(now, lambda armed_at, asked: asked if armed_at == math.inf else asked + armed_at + seconds)
        for key, deadline in self.model.items():
            if deadline <= now and key in self.asked:
                self.model[key] = max(deadline, self.asked[key] + 7 + seconds)

    @rule(now=st.integers(-1_000_000, 1_000_000))
    def expired(self, now):
        found = self.table.expired(now)
        requests = [request for of_worker in found.values() for request in of_worker]
        assert len(requests) == len(set(requests))
        assert set(requests) == {key for key, deadline in self.model.items() if deadline <= now}
        assert all(request[0] == worker for worker, of_worker in found.items() for request in of_worker)

    @invariant()
    def same_size(self):
        assert len(self.table) == len(self.model)
        assert set(self.table) == set(self.model)
        assert all(key in self.table for key in self.model)

    @invariant()
    def same_next_deadline(self):
        expected = min(self.model.values(), default=None)
        found = self.table.next_deadline()
        assert found == expected

    @invariant()
    def same_next_request(self):
        found = self.table.next_deadline()
        assert self.table.next_request(-math.inf) is None
        request = self.table.next_request(math.inf)
        assert (request is None) == (found is None)
        if request is not None:
            assert self.model[request[:2]] == found


test_table_against_model = TableAgainstModel.TestCase


def test_expired_comes_in_order_of_the_deadlines():
    """The requests of one worker come with the earliest deadline first."""
    table = DeadlineTable()
    for deadline in (3, 1, 2):
        table.arm("worker", deadline, deadline, deadline)
    assert table.expired(10) == {"worker": [1, 2, 3]}


def test_expired_leaves_the_timers_live():
    """Looking at expired timers twice finds them twice: only disarming takes them away."""
    table = DeadlineTable()
    table.arm("worker", "scope", 1, "request")
    assert table.expired(5) == table.expired(5) == {"worker": ["request"]}


def test_rearming_replaces_the_deadline():
    """The heap entry of the first arming does not make the timer expire early."""
    table = DeadlineTable()
    table.arm("worker", "scope", 1, "first")
    table.arm("worker", "scope", 9, "second")
    assert table.expired(5) == {}
    assert table.expired(9) == {"worker": ["second"]}


@given(st.integers(1, 3000))
def test_rearming_does_not_make_the_heap_grow(times):
    """Dead heap entries are bounded by the live timers, however often one timer is armed again."""
    table = DeadlineTable()
    for i in range(times):
        table.arm("worker", "scope", 1e9 - i, None)
    assert len(table._heap) <= 2 * len(table) + DeadlineTable._TOLERATED + 1


def test_contains_takes_any_object():
    """Asking for something that is no key answers False, as a dict would."""
    assert "scope" not in DeadlineTable()
    assert (1, 2, 3) not in DeadlineTable()
