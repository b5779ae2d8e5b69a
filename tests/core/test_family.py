"""Which processes are a worker's, over tables that were made up, and against a kernel that was."""

import dataclasses
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unhang._core.family import Family, Reading, Row
from unhang._core.pid_circle import Mark, PidCircle

WORKER = Row(pid=500, parent=400, group=400, session=300, start_time=50)
LEADER = dataclasses.replace(WORKER, group=500)
ABOVE = [Row(1, 0, 1, 1, 0), Row(300, 1, 300, 300, 10), Row(400, 300, 400, 300, 20)]


def row(pid, parent, group=400, session=300, start_time=60):
    return Row(pid, parent, group, session, start_time)


def found(rows, worker=WORKER, family=None, **options):
    """The pids that belong to the worker, in a table that stood still."""
    family = family or Family(worker, **options)
    return [kin.pid for kin in family.meet(Reading([*ABOVE, worker, *rows], None, None), lambda pid: True)]


def test_children_and_theirs_are_members():
    """Each stands behind its parent, with its depth, in whatever order the table has them."""
    rows = [row(502, 501), row(501, 500), row(503, 502)]
    kin = Family(WORKER).meet(Reading([*rows, WORKER], None, None), lambda pid: True)
    assert [(one.pid, one.depth) for one in kin] == [(501, 1), (502, 2), (503, 3)]


def test_children_of_one_tick_are_found_in_any_order():
    """A child may have a lower number than its parent, and the same start time."""
    assert set(found([row(310, 501), row(501, 500)])) == {310, 501}


def test_a_member_is_found_once():
    """Who is known is not told again."""
    family = Family(WORKER)
    assert found([row(501, 500)], family=family) == [501]
    assert found([row(501, 500)], family=family) == []


def test_siblings_and_others_are_no_members():
    """Who shares the worker's parent, group or session, led by others, is not the worker's."""
    assert found([row(501, 400), row(502, 1), row(503, 300), row(504, 501)]) == []


def test_one_that_started_before_its_parent_is_no_child():
    """Then the parent is another process with that number."""
    assert found([row(501, 500, start_time=49)]) == []


@pytest.mark.parametrize("parent", [1, 400, 300])
def test_an_orphan_in_a_session_of_a_member_is_a_member(parent):
    """Nobody enters a session from outside, so any parent will do."""
    assert found([row(600, parent, 500, 500)], LEADER) == [600]


@pytest.mark.parametrize(("parent", "is_member"), [(1, True), (300, True), (400, False), (77, False)])
def test_a_group_of_a_member_counts_for_orphans(parent, is_member):
    """Somebody whose parent lives, or is the worker's, may have been put there from outside."""
    assert bool(found([row(600, parent, 500)], LEADER)) == is_member


def test_a_guest_in_a_group_stays_one():
    """Once seen with another parent, it is no orphan of the worker's when that one is gone."""
    family = Family(LEADER)
    assert found([row(600, 77, 500)], family=family) == []
    assert found([row(600, 1, 500)], family=family) == []


def test_the_watchdogs_own_are_left_out():
    """The watchdog, in a tree, is no member, and its children are not; nor is anybody for being in its session."""
    rows = [row(501, 500), row(700, 501), row(701, 700), row(702, 700, 500, 500), row(1, 500)]
    assert found(rows, LEADER, outside=[700], shared=[500]) == [501]


def test_a_number_that_is_anothers_says_nothing():
    """When a process with another start time has a member's number, who comes from it is not the worker's."""
    family = Family(WORKER)
    assert found([row(501, 500)], family=family) == [501]
    assert found([row(501, 400, start_time=70), row(502, 501, start_time=71)], family=family) == []


CIRCLE = PidCircle(first=300, size=1000, rate=1)


@pytest.mark.parametrize(("last", "is_member"), [(460, True), (499, True), (500, False), (620, False)])
def test_a_dead_members_number_counts_until_it_may_be_given_again(last, is_member):
    """An orphan in a session is known by the leader's number, though nobody of the session was seen living."""
    family = Family(LEADER, CIRCLE, met=Mark(450, 100))
    began, ended = Mark(last, 101), Mark(last, 101)
    orphan = row(470, 1, 500, 500, start_time=100)
    assert bool(family.meet(Reading([*ABOVE, orphan], began, ended), lambda pid: False)) == is_member


def test_a_session_counts_while_a_member_is_in_it():
    """Its number is not given again as long as it is used, however often the circle comes round."""
    family = Family(LEADER, CIRCLE, met=Mark(450, 100))
    one, other = row(501, 500, 500, 500), row(502, 1, 500, 500)
    family.meet(Reading([LEADER, one], Mark(451, 101), Mark(451, 101)), lambda pid: True)
    late = Mark(999, 100_000)
    kin = family.meet(Reading([dataclasses.replace(one, parent=1), other], late, late), lambda pid: pid == 501)
    assert [member.pid for member in kin] == [502]


def test_the_dead_are_forgotten_one_day():
    """A chain of processes without end does not fill the memory, and does not make its head forgotten."""
    family = Family(LEADER)
    family.died(500)
    for pid in range(501, 3000):
        assert found([row(pid, 1, 500, 500)], dataclasses.replace(LEADER, pid=2), family) == [pid]
        family.died(pid)
    assert len(family._kin) <= 300


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=30), st.randoms())
def test_a_table_that_stands_still_gives_exactly_the_descendants(births, random):
    """All below the worker are found, and nobody else, in any order of the rows."""
    rows = [*ABOVE, WORKER]
    below = {WORKER.pid}
    for pid, (parent, leads) in enumerate(births, 501):
        above = rows[parent % len(rows)]
        number = {"group": pid, "session": pid} if leads else {"group": above.group, "session": above.session}
        rows.append(Row(pid, above.pid, **number, start_time=pid))
        if above.pid in below:
            below.add(pid)
    random.shuffle(rows)
    kin = Family(WORKER).meet(Reading(rows, None, None), lambda pid: True)
    assert {member.pid for member in kin} == below - {WORKER.pid}


@given(st.integers(10, 29), st.integers(0, 60), st.integers(10, 29), st.sets(st.integers(10, 29), max_size=15))
def test_the_circle_tells_what_was_given(start, count, number, used):
    """Whatever is in use, a number that was given between two marks is among those that may have been."""
    circle = PidCircle(first=10, size=30, rate=1)
    given_out = []
    last = start
    for _ in range(count):
        last = last + 1 if last + 1 < circle.size else circle.first
        while last in used and len(used) < 20:
            last = last + 1 if last + 1 < circle.size else circle.first
        given_out.append(last)
    told = circle.given(Mark(start, 0, len(used)), Mark(last, count, len(used)))
    assert told is None or set(given_out) <= set(told)
    assert told is None or not told or told[0] == last


class Kernel:
    """One that has few numbers, and gives them again at once. Ours are those that come from process 10."""

    def __init__(self, random, size):
        self.random = random
        self.circle = PidCircle(first=10, size=size, rate=1)
        self.last, self.ticks = 10, 0
        # 2 is a launcher, which gets the orphans.
        rows = [Row(1, 0, 1, 1, 0), Row(2, 1, 2, 2, 0), Row(3, 2, 3, 2, 0), Row(10, 3, 3, 2, 0)]
        self.rows = {row.pid: row for row in rows}
        self.ours = {(10, 0)}

    def used(self):
        numbers = {number for row in self.rows.values() for number in (row.pid, row.group, row.session)}
        return {number for number in numbers if number >= self.circle.first}

    def mark(self):
        return Mark(self.last, self.ticks, len(self.used()))

    def fork(self, parent):
        used = self.used()
        if len(used) >= self.circle.size - self.circle.first - 1:
            return
        self.last += 1
        while self.last in used or self.last >= self.circle.size:
            self.last = self.last + 1 if self.last < self.circle.size else self.circle.first
        self.ticks += 1
        self.rows[self.last] = dataclasses.replace(parent, pid=self.last, parent=parent.pid, start_time=self.ticks)
        if (parent.pid, parent.start_time) in self.ours:
            self.ours.add((self.last, self.ticks))

    def exit(self, gone):
        del self.rows[gone.pid]
        for row in list(self.rows.values()):
            if row.parent == gone.pid:
                self.rows[row.pid] = dataclasses.replace(row, parent=2)

    def lead(self, row):
        """Make a group, or a session as well; who leads a group cannot make a session."""
        if row.group != row.pid:
            change = self.random.choice([{"group": row.pid}, {"group": row.pid, "session": row.pid}])
            self.rows[row.pid] = dataclasses.replace(row, **change)

    def step(self):
        row = self.random.choice(list(self.rows.values()))
        action = self.random.choice(["fork", "fork", "exit", "lead"])
        if action != "exit" or row.pid > 2:
            getattr(self, action)(row)


class Watcher:
    """Reads the rows of a kernel one by one, while that goes on, and holds whom the family has found."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.held = {10: 0}
        self.family = Family(kernel.rows[10], kernel.circle, met=kernel.mark())

    def lives(self, pid):
        row = self.kernel.rows.get(pid)
        return row is not None and self.held.get(pid) == row.start_time

    def look(self, steps):
        for pid in [pid for pid in self.held if not self.lives(pid)]:
            del self.held[pid]
            self.family.died(pid)
        began = self.kernel.mark()
        pids = sorted(self.kernel.rows, reverse=self.kernel.random.random() < 0.5)
        rows = []
        for pid in pids:
            if pid in self.kernel.rows:
                rows.append(self.kernel.rows[pid])
            for _ in range(steps()):
                self.kernel.step()
        for kin in self.family.meet(Reading(rows, began, self.kernel.mark()), self.lives):
            assert (kin.pid, kin.start_time) in self.kernel.ours
            self.held[kin.pid] = kin.start_time
            if not self.lives(kin.pid):
                del self.held[kin.pid]
                self.family.died(kin.pid)


@settings(max_examples=1000)
@given(st.integers(0, 2**32), st.integers(14, 40), st.sampled_from([0, 0.3, 1, 3]))
def test_nobody_is_mistaken_while_numbers_are_given_again(seed, size, pace):
    """Tables that are read while processes come and go, and have each other's numbers, show no wrong member."""
    random = Random(seed)  # noqa: S311 - for a simulation
    watcher = Watcher(Kernel(random, size))
    for _ in range(25):
        for _ in range(random.choice([0, 1, 5, 20])):
            watcher.kernel.step()
        watcher.look(lambda: int(random.expovariate(1 / pace)) if pace else 0)
