"""Fixtures for all tests."""

import contextlib
import gc
import multiprocessing
import os
import queue
import resource
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hypothesis import settings
from hypothesis.internal.conjecture import engine

import capabilities
import reaper
import support
import unhang
from programs import Program
from unhang.testing import unhang_watchdog  # noqa: F401 - a fixture

# What CI says of a change is the same each time; new examples are for those who work on it.
settings.register_profile("unhang", deadline=None, max_examples=100, derandomize=bool(os.environ.get("CI")))
settings.load_profile("unhang")
# Of five minutes; there has to be time left to say what is wrong.
engine.MAX_SHRINKING_SECONDS = 20


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """A test that fails, fails alone: what its frames hold is let go of in silence, and not during another test."""
    before = sys.__dict__.get("last_traceback")
    result = yield
    if sys.__dict__.get("last_traceback") is not before:
        sys.last_exc = sys.last_value = sys.last_traceback = None
        hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
        gc.collect()
        sys.unraisablehook = hook
    return result


@pytest.fixture
def spawn():
    """The multiprocessing context that shares nothing by accident."""
    return multiprocessing.get_context("spawn")


@pytest.fixture
def start():
    """Start a function of `workers` in a process of its own; what is left of it is killed at the end."""
    with contextlib.ExitStack() as ends:

        def start_worker(function, *args, **options):
            worker = support.Worker(function, *args, **options)
            ends.callback(worker.end)
            return worker

        yield start_worker


@pytest.fixture
def popen():
    """Start a `Program`, as with `subprocess.Popen`; what is left of it and of its children is killed at the end."""
    with contextlib.ExitStack() as ends:

        def start_program(command, **options):
            program = Program(command, **options)
            ends.callback(program.end)
            return program

        yield start_program


@pytest.fixture
def pipe_path(tmp_path):
    """Where a named pipe may be made."""
    return str(tmp_path / "timers")


@pytest.fixture
def local_server(spawn):
    """A LocalTimerServer with a long interval, not started: a test may turn its loop itself."""
    server = unhang.LocalTimerServer(spawn.Queue(), max_interval=60)
    yield server
    server.stop()


@pytest.fixture
def file_server(pipe_path):
    """A FileTimerServer with a long interval, not started."""
    server = unhang.FileTimerServer(pipe_path, "test", max_interval=60)
    yield server
    server.stop()


@pytest.fixture
def events():
    """What a `shared_server` tells of workers, as (event, pid, scopes), but for their ends; waits for the next."""
    return queue.SimpleQueue()


@pytest.fixture
def serve_shared(tmp_path, events):
    """Start a SharedTimerServer with some options; its directory is the test's own."""
    tmp_path.chmod(0o700)
    servers = []

    def tell(event, pid, timers):
        # A machine that is busy makes the watchdog oversleep at any time.
        if event not in ("ended", "overslept"):
            events.put((event, pid, [timer.scope for timer in timers]))

    def start_server(**options):
        server = unhang.SharedTimerServer(str(tmp_path / "watchdog.sock"), on_event=tell, **options)
        servers.append(server)
        server.start()
        return server

    yield start_server
    for server in servers:
        server.stop()


@pytest.fixture
def shared_server(serve_shared):
    """A SharedTimerServer that runs, and kills at the deadline without asking or looking."""
    return serve_shared(signal="none", evidence=0)


@pytest.fixture
def shared_client(shared_server):
    """A client of it, for other processes: this one is the watchdog itself."""
    return unhang.SharedTimerClient(shared_server.address)


@pytest.fixture(autouse=True)
def no_process_left():
    """What a test leaves behind ends with it, orphans and daemons included."""
    with reaper.no_process_left():
        yield


@pytest.fixture(autouse=True)
def no_client(no_process_left, monkeypatch, tmp_path_factory):
    """No test inherits the client that another one configured, or leaves reports in this user's home."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    for name in list(os.environ):
        if name.startswith("UNHANG_") or name == "TORCHELASTIC_TIMER_FILE":
            monkeypatch.delenv(name)
    yield
    unhang.configure(None)


@pytest.fixture
def many_descriptors():
    """This process may have as many descriptors as the system lets it: an ordinary user begins with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 4096:
        capabilities.lacks("descriptors", f"more than {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def other_user():
    """The uid of somebody else, for tests that can become them."""
    return capabilities.other_user()


@pytest.fixture
def stopped():
    """SIGSTOP a process; it is continued at the end."""
    pids = []

    def stop(pid):
        os.kill(pid, signal.SIGSTOP)
        seen = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert seen.si_code == os.CLD_STOPPED, "it ended before it could be stopped"
        pids.append(pid)

    yield stop
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue
