"""The process beside the watchdog, for real: it looks, answers, and is nobody's burden."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from multiprocessing import connection

import pytest

from support import LONG, until
from unhang._platform import children, descendants
from unhang.observe import observer as observers
from unhang.observe.endpoint import EndpointError, listen
from unhang.observe.observer import Observing, start_observer
from workers import arm_and_wait, sleep_in_block, step_by_step
from workers import serve_shared as serving

UNHANG = [sys.executable, "-m", "unhang"]
NOT_THERE = "/run/unhang/none.sock"


def get(url, path):
    """The status and the text at a path."""
    host = url.removeprefix("http://")
    asked = http.client.HTTPConnection(host, timeout=LONG)
    try:
        asked.request("GET", path)
        response = asked.getresponse()
        return response.status, response.read().decode()
    finally:
        asked.close()


def sample(url, name):
    """The value of a metric; None if it is not there."""
    for line in get(url, "/metrics")[1].splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    return None


@contextlib.contextmanager
def handle_of(pid):
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def has_ended(handle):
    return bool(connection.wait([handle], LONG))


@pytest.fixture
def observe(tmp_path):
    """Start an observer with HTTP; closed at the end."""
    started = []

    def start(address, **options):
        observer = start_observer(address, Observing(**({"http": "0"} | options)))
        started.append(observer)
        return observer

    yield start
    for observer in started:
        observer.close()


def test_it_answers_for_a_watchdog(shared_server, shared_client, observe, start):
    """Alive before the first worker; then it tells of the worker."""
    url = observe(shared_server.address).url
    assert get(url, "/livez") == (200, "the watchdog looks\n")
    assert get(url, "/readyz") == (200, "0 workers\n")
    worker = start(arm_and_wait, shared_client, 600)
    assert worker.heard() == "armed"
    until(lambda: json.loads(get(url, "/workers")[1])["workers"])
    assert json.loads(get(url, "/workers")[1])["workers"][0]["pid"] == worker.pid
    assert sample(url, "unhang_timers") == 1


def test_kills_are_counted(shared_server, shared_client, observe, start):
    """With the signal that was sent."""
    url = observe(shared_server.address).url
    worker = start(sleep_in_block, shared_client, 0.2)
    assert worker.ended() == -signal.SIGKILL
    until(lambda: sample(url, 'unhang_expirations_total{outcome="killed"}') == 1)
    assert sample(url, 'unhang_kills_total{class="unknown",signal="SIGKILL"}') == 1
    assert sample(url, "unhang_kill_delay_seconds_count") == 1
    until(lambda: sample(url, 'unhang_kill_endings_total{class="unknown",outcome="ended",signal="SIGKILL"}') == 1)


def test_what_happened_before_it_came_is_counted(shared_server, shared_client, observe, start):
    """As far as the watchdog still knows it: so one that is started again has the same numbers."""
    assert start(sleep_in_block, shared_client, 0.2).ended() == -signal.SIGKILL
    url = observe(shared_server.address).url
    assert sample(url, 'unhang_expirations_total{outcome="killed"}') == 1


def test_progress_of_workers_is_seen(shared_server, shared_client, observe, start):
    """Not ready while one is stuck in a block for too long, ready again when it has left that."""
    url = observe(shared_server.address, max_stall=1.0).url
    worker = start(step_by_step, shared_client)
    worker.heard()
    worker.told("enter", 600, "slow")
    until(lambda: get(url, "/readyz")[0] == 503)
    _, why = get(url, "/readyz")
    assert why.startswith(f"worker {worker.pid} makes no progress for ")
    assert "in 'slow'" in why
    worker.told("leave")
    until(lambda: get(url, "/readyz")[0] == 200)


def test_before_and_behind_the_watchdog(observe, serve_shared, tmp_path):
    """503 and why while there is none, 200 when one has come, and 503 again when it has gone."""
    tmp_path.chmod(0o700)
    url = observe(str(tmp_path / "watchdog.sock")).url
    status, why = get(url, "/livez")
    assert status == 503
    assert "nobody listens there" in why
    server = serve_shared()
    until(lambda: get(url, "/livez")[0] == 200)
    server.stop()
    until(lambda: get(url, "/livez")[0] == 503)


def test_a_watchdog_that_is_stopped(observe, start, stopped, tmp_path):
    """It cannot answer: that is told in bounded time, and it is forgiven when it goes on."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "watchdog.sock")
    watchdog = start(serving, address)
    assert watchdog.heard() == "started"
    url = observe(address).url
    assert get(url, "/livez")[0] == 200
    stopped(watchdog.pid)
    until(lambda: get(url, "/livez")[0] == 503)
    assert "it does not answer" in get(url, "/livez")[1]
    os.kill(watchdog.pid, signal.SIGCONT)
    until(lambda: get(url, "/livez")[0] == 200)


def test_it_is_started_again(observe, shared_server, monkeypatch):
    """One that dies has a successor, at the same port."""
    monkeypatch.setattr(observers, "_SHORTEST_PAUSE", 0.01)
    observer = observe(shared_server.address)
    assert get(observer.url, "/livez")[0] == 200
    first = observer.pid
    with handle_of(first) as handle:
        os.kill(first, signal.SIGKILL)
        assert has_ended(handle)
    assert get(observer.url, "/livez")[0] == 200
    assert observer.pid != first


def test_signals_to_all_are_not_for_it(observe, shared_server):
    """It has a session of its own, and what terminals and service managers send to all does not end it."""
    observer = observe(shared_server.address)
    assert get(observer.url, "/livez")[0] == 200
    assert os.getsid(observer.pid) == observer.pid
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP):
        os.kill(observer.pid, number)
    assert get(observer.url, "/livez")[0] == 200


def test_it_ends_when_it_is_closed(observe, shared_server):
    """Soon, and leaves nothing: no process, no port."""
    observer = observe(shared_server.address)
    with handle_of(observer.pid) as handle:
        observer.close()
        assert has_ended(handle)
    assert observer.pid == 0
    observer.close()
    listen(observer.url.removeprefix("http://")).close()


def test_one_that_hangs_is_killed(observe, shared_server, stopped, monkeypatch):
    """Closing takes a bounded time."""
    monkeypatch.setattr(observers, "_LAST_LOOK", 0.3)
    observer = observe(shared_server.address)
    with handle_of(observer.pid) as handle:
        os.kill(observer.pid, signal.SIGSTOP)
        observer.close()
        assert has_ended(handle)


def _observe_and_wait(address, say):
    observer = start_observer(address, Observing(http="0"))
    say.send((observer.pid, observer.url))
    signal.pause()


def test_it_ends_with_the_process_that_started_it(shared_server, start):
    """However that ends."""
    parent = start(_observe_and_wait, shared_server.address)
    pid, url = parent.heard()
    with handle_of(pid) as handle:
        assert get(url, "/livez")[0] == 200
        os.kill(parent.pid, signal.SIGKILL)
        assert has_ended(handle)


def _be_a_command_runner(address, say):
    """End all that it has started, and wait for any child, as `unhang run` does."""
    observer = start_observer(address, Observing(http="0"))
    descendants.send_all(signal.SIGKILL)
    first = get(observer.url, "/livez")[0]
    with handle_of(observer.pid) as handle:
        os.kill(observer.pid, signal.SIGKILL)
        has_ended(handle)
        reaped = children.reap()
    until(lambda: observer.pid == 0)
    say.send((first, reaped))
    observer.close()


def test_it_is_no_part_of_a_command(shared_server, start):
    """Whoever ends what a command left behind, and waits for children, leaves it alone."""
    assert start(_be_a_command_runner, shared_server.address).heard() == (200, {})


def test_neither_environment_nor_directory_decide_what_it_runs(observe, shared_server, tmp_path, monkeypatch):
    """It is the unhang of this process, and the standard library's modules."""
    for name in ("json", "http", "sitecustomize", "unhang", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    observer = observe(shared_server.address)
    assert get(observer.url, "/livez")[0] == 200
    assert os.readlink(f"/proc/{observer.pid}/cwd") == "/"


ELSEWHERE = """
import json, sys
sys.path += json.loads(sys.argv[1])
from unhang.observe.observer import Observing, start_observer
observer = start_observer(sys.argv[2], Observing(http="0"))
print(observer.url, flush=True)
sys.stdin.read()
"""


def test_it_finds_what_only_this_process_finds(popen, shared_server):
    """An installation that no other Python has on its path, as with PYTHONPATH or --target."""
    packages = [path for path in sys.path if path and os.path.isabs(path)]
    with popen(
        [sys._base_executable, "-I", "-c", ELSEWHERE, json.dumps(packages), shared_server.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert get(other.stdout.readline().strip(), "/livez")[0] == 200
        other.stdin.close()
        assert other.wait(LONG) == 0


def test_nothing_to_do():
    """Without HTTP and learning there is no process."""
    assert start_observer(NOT_THERE, Observing()) is None


def test_a_port_that_is_taken():
    """It is told before anything is started."""
    with listen("0") as taken, pytest.raises(EndpointError, match="Address already in use"):
        start_observer(NOT_THERE, Observing(http=str(taken.getsockname()[1])))


# As users have it.


def test_run_says_that_a_port_is_taken(tmp_path):
    """125 and one line; COMMAND is not started."""
    with listen("0") as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*UNHANG, "run", "--http", port, "--", "touch", str(tmp_path / "started")],
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
    assert done.returncode == 125
    assert done.stderr == f"unhang: cannot serve HTTP at '{port}': Address already in use\n"
    assert not (tmp_path / "started").exists()


LEFT_BEHIND = """
import os, signal, sys, time, urllib.request
def ask():
    with urllib.request.urlopen(sys.argv[1] + "/livez") as response:
        return response.status

ask()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
parent = os.getpid()
if os.fork():
    sys.exit(7)
while os.getppid() == parent:
    time.sleep(0.01)
os.write(1, str(ask()).encode())
time.sleep(600)
"""


def free_port():
    with listen("0") as chosen:
        return chosen.getsockname()[1]


def test_run_answers_until_all_has_ended(monkeypatch):
    """Also what COMMAND has left behind is answered; then no process is left, and the status is COMMAND's."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    port = free_port()
    done = subprocess.run(
        [*UNHANG, "run", "--http", str(port), "--", sys.executable, "-c", LEFT_BEHIND, f"http://localhost:{port}"],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.stdout == "200"
    assert done.returncode == 7
    assert "ending 1 process that" in done.stderr
    listen(str(port)).close()


def test_serve_has_it_too(popen, tmp_path):
    """A port that is chosen is told; SIGTERM ends all."""
    tmp_path.chmod(0o700)
    serve = popen(
        [*UNHANG, "serve", "--address", str(tmp_path / "serve.sock"), "--http", "0", "--min-workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = serve.stderr.readline().removeprefix("unhang: HTTP is served at ").strip()
    assert get(url, "/livez")[0] == 200
    assert get(url, "/readyz") == (503, "0 workers connected, not 1\n")
    serve.terminate()
    assert serve.wait(LONG) == 0
