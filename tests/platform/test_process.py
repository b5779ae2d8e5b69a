"""Processes and process groups, for real."""

import os
import resource
import signal
import subprocess
import sys

import pytest

import workers
from support import until
from unhang._platform import process as process_module
from unhang._platform.group import GroupHandle
from unhang._platform.process import ProcessHandle, facts, group_members, me

WITH_PIDFD = [True, False] if hasattr(os, "pidfd_open") else [False]


@pytest.fixture(params=WITH_PIDFD, ids=lambda has: "pidfd" if has else "start time")
def pidfd(request, monkeypatch):
    """With pidfds, and as on a kernel that has none."""
    if not request.param:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    return request.param


def test_a_handle_follows_its_process(pidfd, start):
    """It is alive while the process runs, and not when it is a zombie or gone."""
    worker = start(workers.idle)
    handle = ProcessHandle.open(worker.pid)
    assert handle.alive()
    assert (handle.fd >= 0) == pidfd
    handle.send(signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    assert not handle.alive()
    assert handle.facts() is None
    assert ProcessHandle.open(worker.pid) is None
    worker.ended()
    with pytest.raises(ProcessLookupError):
        handle.send(signal.SIGKILL)
    handle.close()
    handle.close()


def test_a_reused_pid_is_not_the_process(start, monkeypatch):
    """A handle does not signal a process that has its pid but another start time."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    worker = start(workers.idle)
    worker.heard()
    handle = ProcessHandle.open(worker.pid)
    handle.start_time -= 1
    assert not handle.alive()
    with pytest.raises(ProcessLookupError):
        handle.send(signal.SIGKILL)
    assert worker.runs()


def test_a_pid_without_a_process_has_no_handle(pidfd):
    """There is nobody behind a pid that was never given out, nor behind a thread's number."""
    assert ProcessHandle.open(2**22) is None


def test_a_process_short_of_descriptors_keeps_them(start, monkeypatch):
    """The last quarter of the descriptors is not spent on pidfds; the handle works without."""
    worker = start(workers.idle)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    handle = ProcessHandle.open(worker.pid)
    assert handle.fd == -1
    assert handle.alive()


def test_facts_agree_with_the_system(popen):
    """Group, user and state are the process's own, whatever its name looks like."""
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) R (b', 0, 0, 0); print(flush=True); input()"
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with popen([sys.executable, "-c", code], start_new_session=True, **options) as named:
        named.stdout.readline()
        seen = facts(named.pid)
        assert (seen.pid, seen.group, seen.user) == (named.pid, named.pid, os.getuid())
        assert not seen.exited
        assert seen.tracer == 0
        named.kill()


def test_we_know_ourselves():
    """Our parent and pid 1 are among our ancestors, and both ways to find them agree."""
    ours = me()
    assert ours.pid == os.getpid()
    assert os.getppid() in ours.ancestors
    assert ours.ancestors == process_module._ancestors_psutil()


def test_facts_from_psutil_agree_with_procfs():
    """Where there is no procfs, the same facts come from psutil."""
    ours, theirs = facts(os.getpid()), process_module._facts_psutil(os.getpid())
    assert (ours.pid, ours.group, ours.user, ours.exited) == (theirs.pid, theirs.group, theirs.user, theirs.exited)
    assert process_module._facts_psutil(2**22) is None


def new_group(popen):
    return popen([sys.executable, "-c", "input()"], process_group=0, stdin=subprocess.PIPE)


def test_a_group_is_signalled_as_one(popen):
    """A signal to the handle reaches the members, and afterwards the group is empty."""
    with new_group(popen) as leader:
        handle = GroupHandle(leader.pid)
        assert [member.pid for member in handle.members()] == [leader.pid]
        handle.send(signal.SIGKILL)
        leader.wait()
        assert handle.members() == []
        assert group_members(leader.pid) == []


def test_a_group_that_was_empty_is_never_another_one(popen):
    """A number that stood for nobody does not stand for the group that gets it later."""
    with new_group(popen) as leader:
        handle = GroupHandle(leader.pid)
        handle.was_empty = True
        with pytest.raises(ProcessLookupError):
            handle.send(signal.SIGKILL)
        assert leader.poll() is None
        leader.kill()


def test_a_group_with_another_leader_is_another_one(popen):
    """A leader that started at another time is not the one that was meant."""
    with new_group(popen) as leader:
        handle = GroupHandle(leader.pid)
        handle._leader = None
        with pytest.raises(ProcessLookupError):
            handle.send(signal.SIGKILL)
        assert leader.poll() is None
        leader.kill()


def test_a_debugger_is_seen(start):
    """The tracer of a process is among its facts."""
    worker = start(workers.idle)
    worker.heard()
    tracer = start(trace, worker.pid)
    assert tracer.heard() == "tracing"
    until(lambda: facts(worker.pid).tracer == tracer.pid)


def trace(pid, say):
    """Attach to a process as a debugger does."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    seize = 0x4206
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    say.send("tracing" if libc.ptrace(seize, pid, None, None) == 0 else os.strerror(ctypes.get_errno()))
    workers.idle(say)
