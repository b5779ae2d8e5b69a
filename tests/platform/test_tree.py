"""Trees of processes, for real."""

import os
import resource
import signal
import time

import pytest

import capabilities
import reaper
import tree_workers
from support import LONG, descriptors, until
from unhang._core.rules import refuse_process
from unhang._platform import table
from unhang._platform.process import ProcessHandle, facts, me
from unhang._platform.tree import Tree

if not hasattr(os, "pidfd_open"):
    capabilities.is_not_for_this("needs pidfds, to see that nobody is missed", allow_module_level=True)


def may(seen):
    return refuse_process(seen, me())


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """A machine that is busy with other tests keeps a test from looking for longer than a watchdog would be."""
    monkeypatch.setattr(table, "_RATE_OF_ONE_PROCESSOR", 500)


@pytest.fixture
def orphans_go_elsewhere():
    """Orphans in the worker's group that its own parent adopts cannot be told from other children of that parent."""
    reaper.adopt_orphans(False)
    yield
    reaper.adopt_orphans()


@pytest.fixture
def tree_of():
    """A tree, closed at the end; whoever is left is killed."""
    trees = []

    def make(worker, may=may):
        root = ProcessHandle.open(worker.pid)
        tree = Tree(root, may)
        root.close()
        trees.append(tree)
        return tree

    yield make
    for tree in trees:
        tree._may = lambda seen: None
        tree.kill()
        tree.close()


def has_gone(worker):
    """Whether the last process that holds the worker's pipe goes, within half a minute."""
    give_up = time.monotonic() + LONG
    while worker._pipe.poll(max(0, give_up - time.monotonic())):
        try:
            worker._pipe.recv()
        except (EOFError, ConnectionResetError):
            return True
    return False


def pids_of(tree):
    return set(tree._members)


def test_a_tree_is_its_processes_and_nobody_else(start, tree_of):
    """The worker, its children and theirs are found: no sibling, no parent, not this process."""
    start(tree_workers.lonely, "").heard()
    worker = start(tree_workers.wide, 3, 2)
    pids = worker.heard()
    tree = tree_of(worker)
    assert tree.scan() == 9
    assert pids_of(tree) == set(pids)
    assert tree.scan() == 0
    assert tree.alive() == 10


def test_two_hundred_processes_are_killed(start, tree_of):
    """All of them are gone, and a child of this process in the same group runs on."""
    bystander = start(tree_workers.lonely, "")
    bystander.heard()
    worker = start(tree_workers.wide, 9, 21)
    assert len(worker.heard()) == 199
    assert os.getpgid(bystander.pid) == os.getpgid(worker.pid)
    tree = tree_of(worker)
    assert tree.kill(LONG) == 0
    assert has_gone(worker)
    assert not facts(bystander.pid).stopped
    assert bystander.runs()


def test_a_deep_tree_is_killed(start, tree_of):
    """Every generation is found, though each is known by the one above alone."""
    worker = start(tree_workers.deep, 60)
    worker.heard()
    tree = tree_of(worker)
    assert tree.scan() == 60
    assert tree.kill(LONG) == 0
    assert has_gone(worker)


def test_the_deepest_are_signalled_first(start, tree_of, monkeypatch):
    """A child has its signal before its parent has."""
    worker = start(tree_workers.deep, 5)
    worker.heard()
    tree = tree_of(worker)
    sent = []
    monkeypatch.setattr(ProcessHandle, "send", lambda handle, number: sent.append((handle.pid, number)))
    assert tree.signal(signal.SIGTERM, wake=True) == 6
    depths = {member.handle.pid: member.depth for member in tree._members.values()}
    assert [depths[pid] for pid, number in sent if number == signal.SIGTERM] == [5, 4, 3, 2, 1, 0]
    assert [depths[pid] for pid, number in sent if number == signal.SIGCONT] == [5, 4, 3, 2, 1, 0]
    monkeypatch.undo()


def test_one_that_ignores_a_signal_is_killed(start, tree_of):
    """SIGTERM reaches all, and who stays is counted and killed."""
    worker = start(tree_workers.deaf)
    worker.heard()
    tree = tree_of(worker)
    assert tree.signal(signal.SIGTERM) == 2
    assert not tree.wait(0.01)
    assert tree.alive() == 2
    assert tree.kill(LONG) == 0
    assert has_gone(worker)


def test_one_that_is_stopped_takes_its_signal(start, tree_of):
    """With SIGCONT behind it, SIGTERM ends a member that is stopped."""
    worker = start(tree_workers.stopped)
    worker.heard()
    tree = tree_of(worker)
    assert tree.signal(signal.SIGTERM, wake=True) == 2
    assert tree.wait(LONG)
    assert has_gone(worker)


def test_one_that_is_stopped_is_killed(start, tree_of):
    """SIGKILL needs nobody to go on."""
    worker = start(tree_workers.stopped)
    worker.heard()
    assert tree_of(worker).kill(LONG) == 0
    assert has_gone(worker)


@pytest.mark.usefixtures("orphans_go_elsewhere")
@pytest.mark.parametrize("where", ["session", "group"])
def test_an_orphan_is_found_by_what_its_parent_led(where, start, tree_of):
    """A process whose parent has exited, and whose session or group that one made, is still the worker's."""
    worker = start(tree_workers.orphans, where)
    first, second = worker.heard()
    tree = tree_of(worker)
    assert tree.scan() == 2
    del tree._members[second]  # as if it had been born later
    tree._family.forget(second)
    assert worker.told("go on") == "gone"
    assert facts(first) is None
    assert tree.scan() == 1
    assert pids_of(tree) == {worker.pid, second}
    assert tree.kill(LONG) == 0
    assert has_gone(worker)


def test_a_guest_in_the_workers_group_is_not_the_workers(start, tree_of):
    """Another command of the same pipeline is left alone, also when the worker is gone."""
    worker = start(tree_workers.lonely, "group")
    pipeline = start(tree_workers.guest, worker.heard())
    pipeline.heard()
    assert os.getpgid(pipeline.pid) == worker.pid
    tree = tree_of(worker)
    assert tree.kill(LONG) == 0
    assert tree.scan() == 0
    assert has_gone(worker)
    assert pipeline.runs()


@pytest.mark.usefixtures("orphans_go_elsewhere")
@pytest.mark.parametrize("where", ["session", "group"])
@pytest.mark.parametrize("reaped", [True, False])
def test_a_chain_that_moves_on_is_caught(where, reaped, start, tree_of):
    """A worker that leaves a chain of processes behind, each gone once it has made the next, does not get away."""
    worker = start(tree_workers.moving_chain, where, "")
    worker.heard()
    tree = tree_of(worker)
    tree.signal(signal.SIGTERM)
    until(worker._pipe.poll, turn=tree.look)
    if reaped:
        until(lambda: not worker.process.is_alive(), turn=tree.look)
    assert tree.kill(LONG) == 0
    assert has_gone(worker)


def test_a_storm_of_forks_is_ended(start, tree_of):
    """Processes that all fork as fast as they can are stopped, found and killed."""
    worker = start(tree_workers.storm)
    worker.heard()
    tree = tree_of(worker)
    tree.signal(signal.SIGTERM)
    worker.heard()
    assert tree.kill(LONG) == 0
    assert has_gone(worker)


def test_one_that_is_protected_is_left_alone(start, tree_of):
    """A member that may not be signalled runs on, not stopped, and is told with the reason; the others die."""
    worker = start(tree_workers.wide, 3, 0)
    protected = worker.heard()[1]
    tree = tree_of(worker, lambda seen: "it is somebody's" if seen.pid == protected else None)
    assert tree.kill(LONG) == 0
    assert tree.left_alone == {protected: "it is somebody's"}
    assert not facts(protected).stopped
    assert pids_of(tree) == {protected}


def test_one_that_becomes_protected_is_let_go_on(start, tree_of):
    """A member that was stopped, and may not be killed any more, goes on."""
    worker = start(tree_workers.wide, 1, 0)
    protected = worker.heard()[1]
    asked = []

    def may_once(seen):
        asked.append(seen.pid)
        return "too late" if seen.pid == protected and asked.count(protected) > 1 else None

    tree = tree_of(worker, may_once)
    assert tree.kill(LONG) == 0
    assert tree.left_alone == {protected: "too late"}
    until(lambda: not facts(protected).stopped)


def test_a_protected_worker_protects_its_tree(start, tree_of):
    """Where the worker itself may not be signalled, nobody below it is."""
    worker = start(tree_workers.wide, 2, 1)
    worker.heard()
    tree = tree_of(worker, lambda seen: "no" if seen.pid == worker.pid else None)
    assert tree.signal(signal.SIGTERM) == 0
    tree.kill()
    assert tree.left_alone == {worker.pid: "no"}
    assert tree.scan() == 4
    assert tree.alive() == 4


def test_the_watchdog_and_its_ancestors_are_not_members(start, tree_of):
    """A watchdog that runs below the worker does not find itself, nor what it started."""
    start(tree_workers.lonely, "").heard()
    root = ProcessHandle.open(os.getppid())
    tree = Tree(root, lambda seen: "only looked at")
    tree.scan()
    assert not pids_of(tree) & {os.getpid(), *(row.pid for row in table.read_all().rows if row.parent == os.getpid())}
    tree.close()
    root.close()


def test_it_works_without_pidfds(start, tree_of, monkeypatch):
    """Then members are told by their start times."""
    monkeypatch.delattr(os, "pidfd_open")
    worker = start(tree_workers.wide, 4, 3)
    worker.heard()
    tree = tree_of(worker)
    assert tree.look() == 16
    assert tree.kill(LONG) == 0
    assert has_gone(worker)


def test_descriptors_are_bounded(start, tree_of, monkeypatch):
    """A large tree does not take the descriptors that the watchdog needs; it is killed all the same."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    worker = start(tree_workers.wide, 10, 5)
    worker.heard()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (160, hard))
    before = descriptors()
    tree = tree_of(worker)
    assert tree.scan() == 60
    assert descriptors() - before <= 20
    assert tree.kill(LONG) == 0
    assert has_gone(worker)
    tree.close()
    assert descriptors() <= before


def test_a_look_that_fails_does_not_stop_the_kill(start, tree_of, monkeypatch):
    """Those who are known are killed, and the trouble is told."""
    worker = start(tree_workers.wide, 2, 2)
    worker.heard()
    tree = tree_of(worker)
    tree.scan()

    def fails():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("unhang._platform.tree.read_all", fails)
    assert tree.kill(LONG) == 0
    assert tree.trouble.errno == 24
    assert has_gone(worker)
    monkeypatch.undo()


def test_who_cannot_be_held_is_found_again(start, tree_of, monkeypatch):
    """When descriptors run short in the middle, the others are held, and the next look finds the rest."""
    worker = start(tree_workers.wide, 4, 0)
    short = worker.heard()[2]
    open_handle = ProcessHandle.open

    def open_most(pid):
        if pid == short:
            raise OSError(24, "Too many open files")
        return open_handle(pid)

    tree = tree_of(worker)
    with monkeypatch.context() as patch:
        patch.setattr(ProcessHandle, "open", open_most)
        with pytest.raises(OSError, match="Too many"):
            tree.scan()
    assert tree.alive() == 4
    assert tree.scan() == 1
    assert short in pids_of(tree)


def test_a_member_that_has_the_number_of_another_is_held_in_its_place(start, tree_of):
    """A number that was given again within the tree stands for the process that has it now."""
    worker = start(tree_workers.wide, 1, 0)
    child = worker.heard()[1]
    tree = tree_of(worker)
    tree.scan()
    tree._members[child].handle.start_time -= 1
    tree._family.forget(child)
    assert tree.scan() == 1
    assert tree._members[child].handle.start_time == facts(child).start_time


def test_a_look_finds_who_is_new(start, tree_of):
    """Processes that have started since the last look are found without reading the whole table."""
    worker = start(tree_workers.storm)
    worker.heard()
    tree = tree_of(worker)
    tree.scan()
    os.kill(worker.pid, signal.SIGTERM)
    until(lambda: tree.alive() > 20, turn=tree.look)
    assert tree.kill(LONG) == 0
    assert has_gone(worker)


def test_rows_from_psutil_agree_with_procfs():
    """Where there is no procfs, the same rows come from psutil."""
    ours, theirs = table.row_of(os.getpid()), table._row_psutil(os.getpid())
    assert (ours.pid, ours.parent, ours.group, ours.session) == (
        theirs.pid,
        theirs.parent,
        theirs.group,
        theirs.session,
    )
    assert table.row_of(2**22) is None
    assert table._row_psutil(2**22) is None


def test_the_last_number_given_out_is_known():
    """A process that has just started lies between two marks."""
    before = table.mark()
    pid = tree_workers.born(tree_workers.leave)
    os.waitpid(pid, 0)
    assert pid in table.circle().given(before, table.mark())
