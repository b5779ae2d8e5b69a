"""Learning from one run to the next, as its users do it."""

import json
import subprocess
import sys

import pytest

from support import LONG, until
from unhang._worker.learned_file import read_durations

PROGRAM = """
import unhang
STEP = unhang.learned(minimum=0.5, maximum=60, startup=120)

def step():
    timer = unhang.expires(after=STEP, scope="step")
    with timer:
        return timer.after

print([step() for _ in range(1200)][:2])
"""


@pytest.fixture
def directory(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path


def unhang(*args, **options):
    command = [sys.executable, "-m", "unhang", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False, **options)


def test_the_second_run_has_learned_from_the_first(directory):
    """The steps were quick, so their budget is the shortest that is allowed; a start-up was seen only once."""
    file = directory / "learned.json"
    runs = [unhang("run", "--learn", str(file), "--", sys.executable, "-c", PROGRAM) for _ in range(2)]
    assert [run.stdout for run in runs] == ["[120.0, 60.0]\n", "[120.0, 0.5]\n"]
    assert [line for run in runs for line in run.stderr.splitlines() if "overslept" not in line] == []
    told = json.loads(unhang("budgets", str(file), "--json").stdout)
    assert {row["scope"] for row in told["budgets"]} == {"step"}
    assert sum(row["count"] for row in told["budgets"]) == 2400


@pytest.mark.parametrize("place", ["missing/in/proc", "link"])
def test_a_file_that_cannot_be_kept_is_told_before_the_command_runs(directory, place):
    """With what is wrong with it, and the status of a failure of our own."""
    (directory / "link").symlink_to(directory / "elsewhere")
    path = "/proc/none/learned.json" if place != "link" else str(directory / "link")
    run = unhang("run", "--learn", path, "--", sys.executable, "-c", "print('ran')")
    assert (run.returncode, run.stdout) == (125, "")
    assert path in run.stderr


def test_a_program_may_ask_for_it_itself(directory, monkeypatch):
    """configure(learn=…) starts a watchdog that keeps what it learns, also behind the program's end."""
    file = directory / "learned.json"
    program = f"import unhang; unhang.configure(learn={str(file)!r})\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG, check=False)
    assert done.stdout == "[120.0, 60.0]\n"
    until(lambda: read_durations(str(file)))
    assert read_durations(str(file))["step"].count == 1200
