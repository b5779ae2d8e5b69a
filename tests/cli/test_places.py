"""Watchdogs where the well-known directory for their sockets cannot be used: a read-only one stands in its place."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import capabilities
from support import LONG, until
from unhang._platform.directories import make_directory
from unhang._platform.socket_directory import _name

UNHANG = [sys.executable, "-m", "unhang"]
CONFIGURE = """
import os, sys, unhang
unhang.configure()
print(os.environ["UNHANG_ADDRESS"], flush=True)
with unhang.expires(60):
    sys.stdin.read()
"""
# Says where it is, how it is protected, and whether those who look for the only watchdog find it.
LOOK = 'echo "$UNHANG_ADDRESS"; stat -c %a "${UNHANG_ADDRESS%/*}"; unset UNHANG_ADDRESS; "$0" -m unhang check'
SERVE = """
"$0" -m unhang serve --report-dir none >"$1" & serving=$!
until [ -s "$1" ]; do sleep 0.01; done
cat "$1"
"$0" -m unhang check
"$0" -m unhang run -- true
"$0" -m unhang run -- sh -c 'unset UNHANG_ADDRESS; "$0" -m unhang check' "$0"
kill "$serving"
wait "$serving"
"""


@pytest.fixture
def place(monkeypatch):
    """A temporary directory with a short path, in which a file stands where the well-known directory should."""
    with tempfile.TemporaryDirectory(prefix="unhang-test-", dir="/tmp") as path:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setenv("TMPDIR", path)
        (Path(path) / _name()).touch()
        yield path


@pytest.fixture
def spoilt(place):
    """The start of a command that finds the well-known directory under /tmp read-only, too."""
    standing = f"/tmp/{_name()}"
    with contextlib.suppress(FileExistsError):
        make_directory(standing)
    script = 'mount -t tmpfs -o ro,mode=700 unhang-test "$0" && exec "$@"'
    return [*capabilities.unshare(*capabilities.MOUNTS), "sh", "-c", script, standing]


def ended(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def fresh(address, place):
    """The directory of an address, which is a fresh one."""
    directory = os.path.dirname(address)
    assert directory.startswith(f"{place}/{_name()}-")
    return directory


def test_run_takes_a_fresh_directory(spoilt, place):
    """For this user alone; it is found by those who look, and removed at the end."""
    done = ended([*spoilt, *UNHANG, "run", "--", "sh", "-c", LOOK, sys.executable])
    address, mode, found = done.stdout.splitlines()
    assert (done.returncode, mode, found) == (0, "700", "0 workers"), done.stderr
    assert not os.path.exists(fresh(address, place))


@pytest.mark.parametrize("number", [0, signal.SIGKILL])
def test_configure_takes_a_fresh_directory(spoilt, place, popen, number):
    """It is removed with the watchdog, when the worker has ended or was killed."""
    program = popen(
        [*spoilt, sys.executable, "-c", CONFIGURE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    directory = fresh(program.stdout.readline().rstrip("\n"), place)
    assert os.path.isdir(directory)
    if number:
        program.send_signal(number)
    program.stdin.close()
    assert program.wait(LONG) == -number
    until(lambda: not os.path.exists(directory))


def test_serve_says_that_its_address_does_not_stay(spoilt, place, tmp_path):
    """It is printed and found, as long as no other watchdog is there; then all are named."""
    done = ended([*spoilt, "sh", "-c", SERVE, sys.executable, str(tmp_path / "out")])
    address, found, several = done.stdout.splitlines()[:3]
    assert (done.returncode, found, several.partition(";")[0]) == (0, "0 workers", "2 watchdogs are there")
    assert "name one that stays with --address" in done.stderr
    assert not os.path.exists(fresh(address.removeprefix("UNHANG_ADDRESS="), place))
