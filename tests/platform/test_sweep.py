"""What watchdogs that were killed have left is removed, and nothing else."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from support import until
from unhang._platform import socket_directory, sweep

UNHANG = [sys.executable, "-m", "unhang"]


@pytest.fixture
def place(monkeypatch):
    """A temporary directory like /tmp, and no other place."""
    with tempfile.TemporaryDirectory(prefix="unhang-test-", dir="/tmp") as path:
        os.chmod(path, 0o1777)
        monkeypatch.setattr(tempfile, "tempdir", path)
        monkeypatch.setenv("TMPDIR", path)
        monkeypatch.setattr(socket_directory, "_PARENTS", ())
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        yield Path(path)


@pytest.fixture
def directory(place):
    return Path(socket_directory.well_known_directory())


@pytest.fixture
def nobody():
    """The pid of a process that has ended."""
    code = "import os; print(os.getpid())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True).stdout


def left(directory, pid, *, age=100, beginning="watchdog"):
    """A socket that nothing listens at."""
    path = directory / f"{beginning}-{int(pid)}-{secrets.token_hex(4)}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bound:
        bound.bind(str(path))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_is_dead_goes(directory, nobody):
    """Sockets of `unhang run` and of configure()."""
    paths = [left(directory, nobody), left(directory, nobody, beginning="of")]
    sweep.sweep()
    assert [path.exists() for path in paths] == [False, False]


def test_what_may_live_stays(directory, nobody, monkeypatch):
    """What is young, whose maker is there, what listens, what is named otherwise, what is no socket."""
    listening = left(directory, nobody)
    listening.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(listening))
        listener.listen()
        os.utime(listening, (0, 0))
        file = directory / f"watchdog-{int(nobody)}-01234567.sock"
        file.touch()
        os.utime(file, (0, 0))
        named = left(directory, nobody, beginning="serve")
        paths = [listening, file, named, left(directory, nobody, age=10), left(directory, os.getpid())]
        sweep.sweep()
        assert all(path.exists() for path in paths)
        dead = left(directory, nobody)
        monkeypatch.setattr(sweep, "_LOCAL", frozenset())
        sweep.sweep()
        assert dead.exists(), "it may be another host's"


def test_a_fresh_directory_goes_with_its_socket(place, nobody):
    """Once it is old; a new one may be waiting for its socket."""
    old, new = (place / f"{socket_directory._name()}-{secrets.token_hex(8)}" for _ in range(2))
    for path in (old, new):
        path.mkdir(mode=0o700)
    socket_ = left(old, nobody)
    os.utime(old, (0, 0))
    sweep.sweep()
    assert not socket_.exists()
    assert not old.exists()
    assert new.exists()


def test_the_next_start_sweeps(place, directory, popen):
    """A watchdog is killed with SIGKILL; the next one removes its socket when a minute is over, and not before."""
    with popen([*UNHANG, "run", "--report-dir", "none", "--", "sleep", "60"], start_new_session=True) as run:
        until(lambda: any(directory.glob("watchdog-*.sock")))
        (path,) = directory.glob("watchdog-*.sock")
        os.killpg(run.pid, signal.SIGKILL)
    again = [*UNHANG, "run", "--report-dir", "none", "--", "true"]
    for age, stays in ((0, True), (100, False)):
        os.utime(path, (time.time() - age,) * 2)
        subprocess.run(again, timeout=30, check=True)
        assert path.exists() is stays
