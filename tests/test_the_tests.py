"""What all tests have to keep to, read from their sources."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from budgets import BUDGET
from support import LONG

TESTS = Path(__file__).parent
# Each of them starts a process that nothing ends when an assertion fails.
STARTS = {"Popen", "Process", "Pool", "ProcessPoolExecutor"}
# And each of these waits for one, without a bound if it is not given one.
WAITS = {"subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output"}
UNBOUNDED = {"subprocess.getoutput", "subprocess.getstatusoutput"}
# Where the fixture `start` comes from.
ALLOWED = {("support.py", "context.Process")}


def offence(node):
    """What a node calls or imports that may leave a process, or wait for one without a bound; else None."""
    if isinstance(node, ast.ImportFrom) and node.module in ("subprocess", "multiprocessing", "concurrent.futures"):
        return next((name.name for name in node.names if name.name in {*STARTS, "run"}), None)
    if not isinstance(node, ast.Call):
        return None
    name = ast.unparse(node.func)
    starts = isinstance(node.func, ast.Attribute) and node.func.attr in STARTS and name != "psutil.Process"
    is_bounded = any(keyword.arg == "timeout" for keyword in node.keywords)
    return name if starts or name in UNBOUNDED or (name in WAITS and not is_bounded) else None


def offences(source):
    """All of them, as (line, name)."""
    return [(node.lineno, name) for node in ast.walk(ast.parse(source)) if (name := offence(node))]


def test_processes_end_with_the_test_that_starts_them():
    """A test starts programs with `popen`, functions with `start`, and gives `subprocess.run` a timeout."""
    found = [
        f"{path.relative_to(TESTS)}:{line}: {name}"
        for path in TESTS.rglob("*.py")
        for line, name in offences(path.read_text())
        if (path.name, name) not in ALLOWED
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.Popen(['true'])",
        "from subprocess import Popen",
        "multiprocessing.get_context('fork').Process(target=print).start()",
        "subprocess.run(['true'], check=True)",
        "subprocess.getoutput('true')",
    ],
)
def test_a_bare_process_is_found(source):
    """Each way to start a process without an end is an offence."""
    assert len(offences(source)) == 1


def long_timeouts(source):
    """Where more than `LONG` seconds are waited for something, as lines."""
    keywords = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.keyword) and node.arg == "timeout")
    for keyword in keywords:
        if isinstance(keyword.value, ast.Constant) and (keyword.value.value or 0) > LONG:
            yield keyword.value.lineno


def test_a_test_gives_up_before_its_budget_is_over():
    """It fails by itself then, and says what it waited for; tests in peers have budgets of their own."""
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in TESTS.rglob("*.py")
        if {"peers", "sanitize"}.isdisjoint(path.parts)
        for line in long_timeouts(path.read_text())
    ]
    assert found == []
    assert LONG <= BUDGET / 2


def test_a_long_timeout_is_found():
    """Of two calls the one that waits for longer."""
    assert list(long_timeouts("run(a, timeout=30)\nrun(b, timeout=60)")) == [2]


# A skip that nothing judges: `capabilities.lacks` fails where the machine must have what is missing.
SKIPS = {"pytest.skip", "pytest.importorskip", "pytest.mark.skip", "pytest.mark.skipif"}


def skips(source):
    """The attributes in a source that skip a test, as (line, name)."""
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    return [(node.lineno, ast.unparse(node)) for node in nodes if ast.unparse(node) in SKIPS]


def test_every_skip_says_which_capability_is_missing():
    """So that a run can say which ones it may lack, and all other tests run or fail."""
    found = [
        f"{path.relative_to(TESTS)}:{line}: {name}"
        for path in TESTS.rglob("*.py")
        for line, name in skips(path.read_text())
        if path.name != "capabilities.py"
    ]
    assert found == []


@pytest.mark.parametrize("source", ["pytest.skip('why')", "@pytest.mark.skipif(True, reason='why')\ndef test(): pass"])
def test_a_skip_that_nothing_judges_is_found(source):
    """As a call and as a mark."""
    assert len(skips(source)) == 1


@pytest.mark.parametrize(
    ("may_lack", "outcome"),
    [(None, "1 skipped"), ("", "1 failed"), ("mount,time-machine", "1 skipped"), ("mount", "1 failed")],
)
def test_what_must_be_there_fails_where_it_is_not(tmp_path, may_lack, outcome):
    """UNHANG_TESTS_MAY_LACK names what may be missing; if it is not set, anything may be."""
    (tmp_path / "test_it.py").write_text("import capabilities\ndef test(): capabilities.lacks('time-machine', 'why')\n")
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    if may_lack is not None:
        environment["UNHANG_TESTS_MAY_LACK"] = may_lack
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert outcome in done.stdout.splitlines()[-1]
