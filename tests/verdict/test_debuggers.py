"""Debuggers within the process."""

import pytest

from unhang._verdict import debuggers
from unhang.report.model import Frame, Thread


def thread(*calls):
    return Thread(frames=tuple(Frame(function=function, file=file) for function, file in calls))


@pytest.mark.parametrize(
    ("function", "file"),
    [
        ("interaction", "/usr/lib/python3.14/pdb.py"),
        ("Pdb._cmdloop", "/usr/lib/python3.11/pdb.py"),
        ("_do_wait_suspend", "/venv/lib/debugpy/_vendored/pydevd/pydevd.py"),
        ("interaction", "/venv/lib/python3.12/site-packages/pudb/debugger.py"),
    ],
)
def test_who_waits_for_its_user_is_held(function, file):
    """In whichever thread, above its own calls."""
    waiting = thread(("select", "/lib/selectors.py"), (function, file), ("step", "/job/train.py"))
    assert debuggers.hold([thread(("run", "/job/train.py")), waiting])


@pytest.mark.parametrize(
    ("function", "file"),
    [
        ("interaction", "/job/train.py"),
        ("interaction", "/job/notpdb.py"),
        ("trace_dispatch", "/usr/lib/bdb.py"),
    ],
)
def test_who_runs_under_a_debugger_is_not(function, file):
    """Nor a function of the same name."""
    assert not debuggers.hold([thread((function, file)), thread()])
