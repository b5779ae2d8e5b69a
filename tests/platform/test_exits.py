"""How processes end, for real."""

import os
import signal
import subprocess
import sys

import pytest

import capabilities
import workers
from unhang._platform import exits
from unhang._platform.exits import exit_of
from unhang._platform.memory_group import MemoryGroup
from unhang._platform.process import ProcessHandle

GROUPS = "/sys/fs/cgroup/memory"
GROUPS_2 = "/sys/fs/cgroup"


def test_a_zombie_tells_how_it_ended(start):
    """While it has not been waited for, everybody who may see it can tell."""
    worker = start(workers.idle)
    handle = ProcessHandle.open(worker.pid)
    assert exit_of(handle) == ""
    handle.send(signal.SIGSEGV)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    assert exit_of(handle) == "SIGSEGV"
    worker.ended()
    # Linux 6.15 tells it still, an older one does not any more.
    assert exit_of(handle) in ("SIGSEGV", "")
    handle.close()
    assert exit_of(handle) == ""


def test_an_exit_code_is_told(popen):
    """A program that ends by itself has a code."""
    with popen([sys.executable, "-c", "input(); raise SystemExit(3)"], stdin=subprocess.PIPE) as program:
        handle = ProcessHandle.open(program.pid)
        program.stdin.write(b"\n")
        program.stdin.close()
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        assert exit_of(handle) == "exit code 3"
        handle.close()


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "exit code 0"), (256, "exit code 1"), (9, "SIGKILL"), (128 + 11, "SIGSEGV"), (40, "SIGRTMIN+6")],
)
def test_a_status_reads_like_one(status, text):
    """Codes and signals are named; a core dump changes nothing."""
    assert exits.text(status) == text


@pytest.fixture
def memory_group():
    """A control group of 40 MiB, as the directory of it."""
    version_2 = os.path.exists(f"{GROUPS_2}/cgroup.controllers")
    path = f"{GROUPS_2 if version_2 else GROUPS}/unhang-test-{os.getpid()}"
    try:
        os.mkdir(path)
        limits = ("memory.max", "memory.swap.max") if version_2 else ("memory.limit_in_bytes",)
        for name in limits:
            with open(f"{path}/{name}", "w") as limit:
                limit.write("0" if "swap" in name else str(40 << 20))
    except OSError as error:
        if os.path.isdir(path):
            os.rmdir(path)
        capabilities.lacks("memory-group", f"a control group of its own: {error}")
    yield path
    os.rmdir(path)


def test_a_kill_for_want_of_memory_is_counted(memory_group, popen):
    """The counter of the process's group tells such a SIGKILL from any other."""
    code = "input(); x = bytearray(400 << 20); x[::4096] = b'x' * len(x[::4096])"
    with popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as eater:
        with open(f"{memory_group}/cgroup.procs", "w") as members:
            members.write(str(eater.pid))
        group = MemoryGroup.of(eater.pid)
        before = group.kills()
        eater.stdin.write(b"\n")
        eater.stdin.close()
        assert eater.wait() == -signal.SIGKILL
        assert group.kills() == before + 1


def test_nobody_has_no_group():
    """Without a process, and without a file, there is nothing to count."""
    assert MemoryGroup.of(2**22) is None
    assert MemoryGroup("/nowhere").kills() is None
