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

    @rule(worker=workers, scope=scopes, deadline=instants)
    def arm(self, worker, scope, deadline):
        self.table.arm(worker, scope, deadline, (worker, scope))
        self.model[worker, scope] = deadline

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
            if key[0] == worker:
                self.model[key] = max(deadline, until)

    @rule(seconds=st.integers(0, 1000))
    def give_back(self, seconds):
        self.table.give_back(seconds)
        for key in self.model:
            self.model[key] += seconds

    @rule(now=st.integers(-1_000_000, 1_000_000))
    def expired(self, now):
        found = self.table.expired(now)
        # Adding and subtracting what was given back may cost the last digits.
        certain = {key for key, deadline in self.model.items() if deadline < now - 1e-3}
        possible = {key for key, deadline in self.model.items() if deadline < now + 1e-3}
        requests = [request for of_worker in found.values() for request in of_worker]
        assert len(requests) == len(set(requests))
        assert certain <= set(requests) <= possible
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
        assert (found is None) == (expected is None)
        assert found is None or found == expected or math.isclose(found, expected, abs_tol=1e-3)

    @invariant()
    def same_next_request(self):
        found = self.table.next_deadline()
        assert self.table.next_request(-math.inf) is None
        request = self.table.next_request(math.inf)
        assert (request is None) == (found is None)
        if request is not None:
            assert self.model[request[:2]] == found or math.isclose(self.model[request[:2]], found, abs_tol=1e-3)


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
