"""Who keeps a command running whose budget is over."""

from hypothesis import given
from hypothesis import strategies as some

from unhang._verdict.command import judge
from unhang.report.model import Evidence, HangClass, Sure, Worker


def process(pid, hang=HangClass.SLEEP):
    return Worker(pid=pid, timers=False, evidence=None if hang is None else Evidence(hang=hang))


def test_a_process_that_all_others_wait_for():
    """The end of a chain of children."""
    tree = [process(1, HangClass.CHILD), process(2, HangClass.CHILD), process(3, HangClass.LOCK)]
    verdict = judge(tree, {1: 0, 2: 1, 3: 2}, is_whole=True)
    assert (verdict.culprits, verdict.victims, verdict.sure) == ((3,), (1, 2), Sure.LIKELY)


def test_several_that_wait_for_no_child():
    """Any of them may be it; those that wait are named as such all the same."""
    tree = [process(1, HangClass.CHILD), process(2), process(3)]
    verdict = judge(tree, {1: 0, 2: 1, 3: 1}, is_whole=True)
    assert (verdict.culprits, verdict.victims, verdict.sure) == ((), (1,), Sure.CANNOT_TELL)


def test_what_was_not_looked_at_may_be_it():
    """A process for which there was no time, or no place in the report: nobody is blamed."""
    tree = [process(1, HangClass.CHILD), process(2)]
    assert judge(tree, {1: 0, 2: 1}, is_whole=False).culprits == ()
    assert judge([*tree, process(3, None)], {1: 0, 2: 1, 3: 1}, is_whole=True).culprits == ()


def test_a_wait_for_a_child_that_is_not_there():
    """A process without children in the tree does not wait for one of them, whatever its class."""
    assert judge([process(1, HangClass.CHILD), process(2)], {1: 0, 2: 0}, is_whole=True).victims == ()


@given(some.lists(some.sampled_from([*HangClass, None]), min_size=1, max_size=8), some.booleans(), some.data())
def test_nobody_is_blamed_who_waits_for_a_child(hangs, is_whole, data):
    """In any tree: a culprit is one, has no part among those that wait, and all others are among them."""
    pids = range(1, len(hangs) + 1)
    parents = {pid: data.draw(some.integers(0, pid - 1)) for pid in pids}
    verdict = judge([process(*each) for each in zip(pids, hangs, strict=True)], parents, is_whole=is_whole)
    assert len(verdict.culprits) <= 1
    assert not set(verdict.culprits) & set(verdict.victims)
    if verdict.culprits:
        assert len(verdict.victims) == len(hangs) - 1
