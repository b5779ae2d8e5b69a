"""The command line, run as a user runs it."""

import subprocess
import sys

import pytest

import unhang
from support import LONG


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "unhang", *arguments], capture_output=True, text=True, timeout=LONG, check=False
    )


def test_the_demo_goes_as_it_should():
    """Eight workers each way, shared timers first: three finish, five are killed; status 0, lines of 80 columns."""
    done = run("demo", "--after", "0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("shared timers: ")
    assert max(map(len, lines)) <= 80
    assert " ".join(done.stdout.split()).count("when the evidence about all who hang is there") == 1
    assert done.stdout.count("demo_workers.py:") == 5
    assert "<string>" not in done.stdout
    assert sum("finished" in line for line in lines) == 9
    assert sum(" killed" in line and " ms" in line for line in lines) == 15
    assert "All 24 workers ended as they should" in done.stdout


def test_the_demo_over_one_way():
    """--via takes one of them."""
    done = run("demo", "--via", "fifo", "--after", "0.3")
    assert done.returncode == 0
    assert "queue" not in done.stdout


def test_help_and_version():
    """Help names the commands; the version is the package's; nonsense is an error of usage."""
    assert "demo" in run("--help").stdout
    assert unhang.__version__ in run("--version").stdout
    assert run("nonsense").returncode == 125
    assert run("demo", "--after", "-1").returncode == 125


@pytest.mark.parametrize("command", ["run", "serve", "demo"])
def test_every_option_has_a_twin_in_the_environment(command):
    """Help names a variable for each but --help."""
    text = run(command, "--help").stdout
    options = [line for line in text.splitlines() if line.startswith("  --")]
    assert options
    assert text.count("UNHANG_") >= len(options)
    assert " ".join(text.split()).count("env var: UNHANG_") == len(options)
