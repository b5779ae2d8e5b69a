"""`unhang status`, as a script or a person runs it."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import support
import workers
from unhang.observe.document import decode

CROWD = str(Path(__file__).parents[2] / "examples" / "crowd.py")
STATUS = [sys.executable, "-m", "unhang", "status"]


def run(*arguments, **environment):
    return subprocess.run(
        [*STATUS, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def runtime():
    """A directory for sockets: the path of one may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="unhang-") as directory:
        yield directory


@pytest.fixture
def worker(shared_client, start):
    """A worker in a block."""
    worker = start(workers.step_by_step, shared_client)
    assert worker.heard() == "ready"
    worker.told("enter", 600, "/home/ada/a project/train.py:88")
    return worker


@pytest.fixture
def address(shared_server, worker):
    return shared_server.address


def test_a_plain_table(address, worker):
    """A line for each worker, its block last and whole, no colours, no trailing spaces."""
    done = run("--address", address)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert f"watchdog {os.getpid()} on " in lines[0]
    assert "1 worker  1 timer armed" in lines[0]
    title = next(line for line in lines if line.startswith("state"))
    assert title.split("  ")[-1] == "block"
    assert " ".join(title.split()) == "state rank pid running budget left timers blk/s idle thr block"
    cells = lines[lines.index(title) + 1].split(maxsplit=10)
    assert cells[:3] == ["ok", "-", str(worker.pid)]
    assert (cells[4], cells[6:8]) == ("10min", ["1", "0"])
    assert cells[10] == "/home/ada/a project/train.py:88"


def test_one_document(address, worker):
    """--json, with the shape that is documented; rates are known."""
    done = run("--address", address, "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = decode(line.encode())
    assert found.watchdog.pid == os.getpid()
    (seen,) = found.workers
    assert (seen.pid, seen.timers, seen.rate) == (worker.pid, 1, 0.0)
    assert seen.blocks[0].scope == "/home/ada/a project/train.py:88"
    assert json.loads(line)["workers"][0]["left"] < 600


def test_no_workers(shared_server):
    """Is said, and is no failure."""
    done = run(UNHANG_ADDRESS=shared_server.address)
    assert done.returncode == 0
    assert "no workers" in done.stdout
    assert decode(run("--json", UNHANG_ADDRESS=shared_server.address).stdout.encode()).workers == ()


@pytest.mark.parametrize("arguments", [["--json", "--watch", "0.5"], ["--watch=0.5", "--json"]])
def test_watching(popen, address, worker, arguments):
    """One line for each look, written at once; Ctrl-C ends it, with 0."""
    with popen([*STATUS, "--address", address, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert decode(process.stdout.readline().encode()).workers[0].timers == 1
        worker.told("enter", 600, "another")
        while decode(process.stdout.readline().encode()).workers[0].timers != 2:
            assert select.select([process.stdout], [], [], support.LONG)[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(support.LONG) == 0


def test_watching_without_a_number(popen, address):
    """The number may be left out; tables are told apart by an empty line."""
    with popen([*STATUS, "--address", address, "--watch"], stdout=subprocess.PIPE, text=True) as process:
        tables = 0
        while tables < 2:
            tables += process.stdout.readline().startswith("state")
        process.send_signal(signal.SIGINT)
        assert process.wait(support.LONG) == 0


def test_a_watchdog_that_goes(popen, shared_server):
    """--watch ends with 125, and says why."""
    command = [*STATUS, "--address", shared_server.address, "--watch", "0.5"]
    with popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline()
        shared_server.stop()
        _, said = process.communicate(timeout=support.LONG)
    assert process.returncode == 125
    assert len(said.splitlines()) == 1
    assert "Traceback" not in said


def test_no_watchdog(tmp_path):
    """Status 125 and a reason: nobody listens, or nobody is known."""
    tmp_path.chmod(0o700)
    for done, words in (
        (run("--address", str(tmp_path / "none.sock")), "nobody listens there"),
        (run(XDG_RUNTIME_DIR=str(tmp_path)), "no watchdog listens"),
        (run("--watch=0.1"), "--watch"),
    ):
        assert done.returncode == 125
        assert words in done.stderr
        assert not done.stdout


def test_the_only_watchdog_is_found(popen, runtime):
    """The one of `unhang run`, from another terminal, without an address."""
    code = "import unhang\nwith unhang.expires(60, 'found'): print('in', flush=True); input()"
    command = [sys.executable, "-m", "unhang", "run", "--", sys.executable, "-c", code]
    environment = {**os.environ, "XDG_RUNTIME_DIR": runtime}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with popen(command, env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == "in\n"
        done = run(XDG_RUNTIME_DIR=runtime)
        process.communicate("\n", timeout=support.LONG)
    assert done.returncode == 0, done.stderr
    assert "found" in done.stdout


def test_several_watchdogs_are_told_apart(runtime, popen):
    """By the command that each watches, be it `unhang run`'s or a program that has started its own."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": runtime}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment, "text": True}
    code = "import unhang; unhang.configure(); print('up', flush=True); input()"
    commands = (
        [sys.executable, "-m", "unhang", "run", "--", "sh", "-c", "echo up; read line"],
        [sys.executable, "-c", code, "its argument"],
    )
    running = [popen(command, **pipes) for command in commands]
    for process in running:
        assert process.stdout.readline() == "up\n"
    done = run(XDG_RUNTIME_DIR=runtime)
    for process in running:
        process.communicate("\n", timeout=support.LONG)
    first, *listed = done.stderr.splitlines()
    assert "2 watchdogs are there; name one with --address" in first
    assert any(line.endswith(f"(pid {running[0].pid}: unhang run -- sh -c echo up; read line)") for line in listed)
    assert any(f"(pid {running[1].pid}: {sys.executable} -c import unhang" in line for line in listed)


@pytest.mark.parametrize("options", [[], ["--together"]])
def test_the_example_of_the_guide(popen, runtime, options):
    """One of examples/crowd.py is stuck, and it is said which one, and where."""
    crowd = [sys.executable, CROWD, "--workers", "6", "--stuck-at", "2", *options]
    environment = {**os.environ, "XDG_RUNTIME_DIR": runtime}
    with popen([sys.executable, "-m", "unhang", "run", "--", *crowd], env=environment) as process:
        support.until(lambda: run(XDG_RUNTIME_DIR=runtime).returncode == 0)
        command = [*STATUS, "--watch", "0.5"]
        with popen(command, env=environment, stdout=subprocess.PIPE, text=True) as status:
            assert any("STUCK? rank 5" in line and "in 'load'" in line for line in status.stdout)
            status.terminate()
        process.terminate()


def test_a_reader_that_goes(popen, address):
    """`unhang status | head -1` ends quietly."""
    command = [*STATUS, "--address", address, "--watch", "0.5"]
    with popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline()
        process.stdout.close()
        process.wait(support.LONG)
        assert process.stderr.read() == ""


def test_output_that_knows_ascii_only(address):
    """It shows what it can, and nothing fails."""
    done = run("--address", address, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr


def test_every_option_has_a_twin_in_the_environment(address):
    """Help names it, and it works."""
    usage = run("--help").stdout
    options = [line for line in usage.splitlines() if line.startswith("  --")]
    assert " ".join(usage.split()).count("env var: UNHANG_") == len(options) == 3
    assert run("--address", address, UNHANG_STATUS_JSON="1").stdout.startswith("{")
