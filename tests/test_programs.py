"""How processes of tests end."""

import subprocess
import sys
import time

import pytest

import reaper
from processes import descendants
from support import LONG, until
from unhang._platform.process import facts

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
child.wait()
"""
DAEMON = """
import os, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
time.sleep(600)
"""


def test_a_program_ends_when_its_block_raises(popen):
    """A failed assertion inside `with` waits for nothing, and takes the program's children along."""
    began = time.monotonic()
    program = popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    child = int(program.stdout.readline())
    assert descendants(program.pid) == [child]
    with pytest.raises(AssertionError), program:
        raise AssertionError
    assert time.monotonic() - began < LONG
    assert program.returncode == -9
    assert program.stdout.closed
    until(lambda: (left := facts(child)) is None or left.exited)


def test_a_program_is_waited_for_within_a_bound(popen, monkeypatch):
    """A program that goes on after its block is killed, and the test fails."""
    program = popen(["sleep", "600"])
    monkeypatch.setattr("programs.Program.wait.__defaults__", (0.01,))
    with pytest.raises(subprocess.TimeoutExpired), program:
        pass
    monkeypatch.undo()
    assert program.wait() == -9


def test_a_daemon_ends_with_its_test():
    """A process whose parents have exited, in a session of its own, is found and killed."""
    with reaper.no_process_left():
        done = subprocess.run([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, check=True, timeout=LONG)
        daemon = int(done.stdout)
        assert not facts(daemon).exited
    assert facts(daemon) is None


def test_a_process_that_was_there_before_lives_on(popen):
    """What a fixture of the module has started is not the test's."""
    with popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as before:
        with reaper.no_process_left():
            pass
        assert before.poll() is None
