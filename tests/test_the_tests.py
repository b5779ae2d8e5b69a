"""What all tests have to keep to, read from their sources."""

import ast
from pathlib import Path

import pytest

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
