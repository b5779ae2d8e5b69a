"""``unhang check``, as a probe runs it."""

import os
import subprocess
import sys

import pytest

from support import LONG, until
from workers import learn_with_many_clients, serve_shared, step_by_step

UNHANG = [sys.executable, "-m", "unhang"]


def check(*arguments, **environment):
    """The exit status, and what was said."""
    done = subprocess.run(
        [*UNHANG, "check", *arguments],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.fixture
def address(shared_server):
    return shared_server.address


def test_all_is_well(address, shared_client, start):
    """0, and a line for people; by option, or by the environment as `unhang run` sets it."""
    assert check("--address", address) == (0, "0 workers\n")
    worker = start(step_by_step, shared_client)
    worker.heard()
    worker.told("enter", 600, "step")
    assert check("--min-workers", "1", UNHANG_ADDRESS=address) == (0, "1 worker\n")
    assert check("--quiet", UNHANG_ADDRESS=address) == (0, "")


def test_a_worker_that_stalls(address, shared_client, start):
    """1, and who and where; --max-stall says how long is too long."""
    worker = start(step_by_step, shared_client)
    worker.heard()
    worker.told("enter", 600, "step")
    # The watchdog sees a second late that something was entered.
    until(lambda: check("--address", address, "--max-stall", "1.5")[0] == 1)
    _, line = check("--address", address, "--max-stall", "1.5")
    assert line.startswith(f"worker {worker.pid} makes no progress for ")
    assert line.endswith("timeout 600 s\n")
    assert line.count("\n") == 1
    assert check("--address", address) == (0, "1 worker\n")
    assert check("--address", address, "--max-stall", "1.5", "--startup", "600")[0] == 0
    assert check("--address", address, "--max-stall", "1.5", "-q") == (1, "")


def test_a_worker_between_two_blocks(address, shared_client, start):
    """It has nothing to finish, unless it should always have."""
    worker = start(step_by_step, shared_client)
    worker.heard()
    worker.told("enter", 600, "step")
    worker.told("leave")
    until(lambda: check("--address", address, "--max-stall", "0.5", "--idle-too")[0] == 1)
    assert check("--address", address, "--max-stall", "0.5") == (0, "1 worker, 1 of them in no block\n")


def test_workers_that_are_missing(address):
    """Unless they may still come."""
    assert check("--address", address, "--min-workers", "2") == (1, "0 workers connected, not 2\n")
    started = (0, "0 workers of 2; the watchdog has just started\n")
    assert check("--address", address, "--min-workers", "2", "--startup", "600") == started
    assert check(UNHANG_ADDRESS=address, UNHANG_MIN_WORKERS="2")[0] == 1


def test_no_watchdog(tmp_path):
    """1 as well, with one line: a probe knows no other failure."""
    tmp_path.chmod(0o700)
    status, line = check("--address", str(tmp_path / "none.sock"))
    assert status == 1
    assert line == (
        f"cannot look at the watchdog at {tmp_path}/none.sock: nobody listens there; start one with `unhang run` or "
        "`unhang serve`\n"
    )
    status, line = check(XDG_RUNTIME_DIR=str(tmp_path))
    assert status == 1
    assert line.startswith("no watchdog listens in ")
    assert line.count("\n") == 1
    assert check("--address", "relative")[0] == 1


def test_several_watchdogs(tmp_path, start):
    """One line, though it names them all."""
    tmp_path.chmod(0o700)
    (tmp_path / "unhang").mkdir(0o700)
    for name in ("one", "two"):
        assert start(serve_shared, str(tmp_path / "unhang" / f"{name}.sock")).heard() == "started"
    status, line = check(XDG_RUNTIME_DIR=str(tmp_path))
    assert status == 1
    assert "one.sock" in line
    assert "two.sock" in line
    assert line.count("\n") == 1


def test_a_watchdog_that_is_stopped(tmp_path, start, stopped):
    """It is not waited for without end."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "watchdog.sock")
    watchdog = start(serve_shared, address)
    assert watchdog.heard() == "started"
    stopped(watchdog.pid)
    status, line = check("--address", address)
    assert status == 1
    assert "it does not answer" in line


@pytest.mark.parametrize("output", ["> /dev/full", ">&-", ""], ids=["full", "closed", "not read"])
def test_a_line_that_cannot_be_written(address, output):
    """The exit status says all: it is that of the workers."""
    reader, writer = os.pipe()
    os.close(reader)
    for expected, limit in ((0, "0"), (1, "2")):
        command = [*UNHANG, "check", "--address", address, "--min-workers", limit]
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" {output}', "sh", *command],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=LONG,
            check=False,
        )
        assert (done.returncode, done.stderr) == (expected, b"")
    os.close(writer)


def test_workers_that_cannot_be_seen(address, start):
    """1: with so few descriptors it is not known what they do."""
    crowd = start(learn_with_many_clients, address, 10)
    crowd.heard()
    command = [*UNHANG, "check", "--address", address, "--min-workers", "1"]
    assert check("--address", address, "--min-workers", "1")[0] == 0
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -n 16; exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "raise the limit of open files" in done.stdout


@pytest.mark.parametrize("option", [("--max-stall", "nan"), ("--max-stall", "-1"), ("--min-workers", "x"), ("extra",)])
def test_options_that_are_wrong(option):
    """They are not taken for a watchdog that is ill: 125."""
    done = subprocess.run([*UNHANG, "check", *option], capture_output=True, timeout=LONG, check=False)
    assert done.returncode == 125
    assert done.stderr
