"""All processes below one: found, signalled, ended."""

import os
import signal
import sys
import types

from unhang._platform import children, descendants

TREE = "import os, sys, time; os.fork(); os.fork(); os.write(2, b'x'); time.sleep(600)"
# Each makes the next and exits; the first one stays.
CHAIN = """
import os, sys, time
os.write(2, b"x")
end = time.monotonic() + 30
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    time.sleep(0.0005)
"""


def spawn(code):
    """Start a program; returns its pid, and the reading end of its standard error."""
    reader, writer = os.pipe()
    pid = children.spawn([sys.executable, "-c", code], os.environ, set(), stderr=writer)
    os.close(writer)
    return pid, reader


def act(code, lines, action, say):
    """Start a program that writes so many bytes, act on what is below this process, and say what is left."""
    children.become_subreaper()
    pid, reader = spawn(code)
    for _ in range(lines):
        assert os.read(reader, 1)
    seen = [(each.handle.pid, each.parent, each.depth) for each in descendants.running()]
    say.send((pid, seen, action(), children.own_children()))


def kill():
    return descendants.kill_all(children.reap, within=10.0)


def terminate():
    count = descendants.send_all(signal.SIGTERM, signal.SIGCONT)
    while children.own_children():
        children.reap()
    return count


def test_the_parents_come_first(start):
    """Each with its own parent, and how deep it stands."""
    worker = start(act, TREE, 4, kill)
    root, seen, left, _ = worker.heard()
    assert seen[0] == (root, worker.pid, 0)
    assert sorted(depth for _, _, depth in seen) == [0, 1, 1, 2]
    at = {pid: depth for pid, _, depth in seen}
    assert all(at[parent] == depth - 1 for _, parent, depth in seen[1:])
    assert left == 0


def test_all_get_a_signal(start):
    """And nobody gets it twice."""
    _, seen, count, left = start(act, TREE, 4, terminate).heard()
    assert len(seen) == count == 4
    assert left == []


def test_a_chain_of_processes_is_killed(start):
    """However short the time is for which each of its links is there."""
    for _ in range(5):
        worker = start(act, CHAIN, 1, kill)
        _, _, left, children_left = worker.heard()
        assert (left, children_left) == (0, [])
        worker.ended()


def test_tools_of_ours_are_left_alone(start):
    """They are not of the command."""
    worker = start(_with_a_tool)
    seen, count, tool = worker.heard()
    assert (seen, count) == ([], 0)
    assert tool == 0


def _with_a_tool(say):
    from unhang._platform import servants

    tool = servants.start(lambda: types.SimpleNamespace(pid=spawn("import time; time.sleep(600)")[0]))
    count = descendants.kill_all(children.reap)
    say.send(([each.handle.pid for each in descendants.running()], count, os.waitpid(tool.pid, os.WNOHANG)[0]))
    os.kill(tool.pid, signal.SIGKILL)
    os.waitpid(tool.pid, 0)
