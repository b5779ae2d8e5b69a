"""The budget of a test, in runs of pytest of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import LONG, until
from unhang._platform.process import facts

STUCK = """
import ctypes, os, subprocess, time
from pathlib import Path
import pytest

@pytest.mark.budget(0.3)
def test_stuck():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path("child").write_text(str(child.pid))
    ctypes.PyDLL(None).sleep(600)  # keeps the GIL
"""
OTHERS = """
@pytest.mark.parametrize("number", range(5))
def test_well(number):
    pass
"""
FORKED = """
reader, writer = os.pipe()

@pytest.mark.budget(1)
def test_that_forks():
    if os.fork() == 0:
        time.sleep(1.5)
        os.write(writer, b"x")
        os._exit(0)

def test_forked_child_has_no_part_in_a_budget():
    assert os.read(reader, 1) == b"x"
"""
VARIABLES = """
def test_variables():
    import unhang, unhang.errors
    assert not [name for name in os.environ if name.startswith("UNHANG_")]
    with pytest.raises(unhang.errors.NoTimerClientError), unhang.expires(1):
        pass
"""


@pytest.fixture
def pytest_run(tmp_path):
    """Run pytest on a file of tests, with the plugin."""
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['budgets']")
    (tmp_path / "pytest.ini").write_text("[pytest]")

    def run(tests, *arguments):
        (tmp_path / "test_it.py").write_text(tests)
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )

    return run


def has_gone(pid):
    return (left := facts(pid)) is None or left.exited


def test_a_stuck_test_fails_alone(pytest_run, tmp_path):
    """Under xdist it is reported though its output is captured, its processes are gone, and the others go on."""
    done = pytest_run(STUCK + OTHERS, "-n", "2")
    assert "hangs in 'test_it.py::test_stuck' for 0." in done.stderr
    assert "test_it.py:10 in test_stuck" in done.stderr
    assert "1 failed, 5 passed" in done.stdout
    assert "crashed while running 'test_it.py::test_stuck'" in done.stdout
    assert done.returncode == 1
    until(lambda: has_gone(int((tmp_path / "child").read_text())))


def test_a_stuck_test_ends_a_run_without_workers(pytest_run, tmp_path):
    """The report is seen, and the status says that it was killed."""
    done = pytest_run(STUCK + OTHERS)
    assert "hangs in 'test_it.py::test_stuck' for 0." in done.stderr
    assert done.returncode == -signal.SIGKILL
    until(lambda: has_gone(int((tmp_path / "child").read_text())))


@pytest.mark.parametrize("arguments", [[], ["-n", "1"]])
def test_tests_in_time_see_nothing_of_it(pytest_run, arguments):
    """Neither a variable nor a client, and nothing is printed."""
    done = pytest_run(STUCK.partition("@")[0] + OTHERS + FORKED + VARIABLES, *arguments)
    assert "8 passed" in done.stdout
    # A machine that is busy makes a watchdog oversleep at any time.
    assert [line for line in done.stderr.splitlines() if "overslept" not in line] == []


def test_the_budget_of_tests_without_a_mark_is_an_option(pytest_run):
    """--budget is in seconds."""
    done = pytest_run("import time\ndef test_slow(): time.sleep(600)", "--budget=0.3")
    assert "hangs in 'test_it.py::test_slow' for 0." in done.stderr
