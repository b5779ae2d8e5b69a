"""Gives each test a budget that unhang enforces from outside, for `pytest_plugins`.

A test that runs for longer, its fixtures included, is reported on the terminal, whatever pytest captures, and killed
with all that it has started. Under xdist the worker is replaced, and the run goes on; without it, it ends there.

The watchdog is one process, started by the pytest that was called, and a child of none: it may have to kill any. Tests
see nothing of it: no variable, no default client.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import pytest

import reaper
import unhang

# Seconds of a test that is not marked with another budget; more than `support.LONG`, so that a test which waits in vain
# mostly fails by itself.
BUDGET = 60.0
# Seconds in which the watchdog has been started.
_PATIENCE = 30.0

_OPTIONS = {"UNHANG_SIGNAL": "none", "UNHANG_KILL": "tree"}
_CODE = """
import logging, os, sys
if os.fork():
    os._exit(0)
sys.path[:] = {path!r}
# That tests failed, pytest says itself.
logging.getLogger("unhang.watchdog").addFilter(lambda record: "died: exit code" not in record.getMessage())
from unhang.cli.embedded import main
main({address!r}, {listener}, {lifeline}, {owner})
os.rmdir(os.path.dirname({address!r}))
"""


def pytest_addoption(parser):
    text = "seconds that a test may take which has no mark `budget`"
    parser.addoption("--budget", type=float, default=BUDGET, metavar="SECONDS", help=text)


def pytest_configure(config):
    config.addinivalue_line("markers", "budget(seconds): how long the test may take")
    if hasattr(config, "workerinput"):
        address = config.workerinput["budgets"]
    elif config.getvalue("usepdb") or config.getvalue("trace"):
        address = ""
    else:
        address = _start_watchdog(config)
    config.pluginmanager.register(_Budgets(address, config.getoption("budget")))
    reaper.adopt_orphans()
    cleanup = contextlib.ExitStack()
    cleanup.enter_context(reaper.no_process_left())
    config.add_cleanup(cleanup.close)


class _Budgets:
    """The hooks of one pytest process; without an address nothing is limited."""

    def __init__(self, address, budget):
        self._address = address
        self._budget = budget
        self._client = unhang.SharedTimerClient(address, learn=False) if address else None
        self._suspensions = contextlib.ExitStack()
        self._timer = None
        self._has_workers = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node):
        node.workerinput["budgets"] = self._address
        self._has_workers = True

    def pytest_runtest_logreport(self):
        """Wait for processes that were adopted and have ended; execnet does not need the status of a worker."""
        with contextlib.suppress(ChildProcessError):
            while self._has_workers and os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        if self._client is None:
            return (yield)
        marker = item.get_closest_marker("budget")
        with self._client.timer(marker.args[0] if marker else self._budget, item.nodeid) as self._timer:
            return (yield)

    def pytest_enter_pdb(self):
        """Who looks for a mistake takes their time."""
        if self._timer is not None:
            self._suspensions.enter_context(self._timer.suspended())

    def pytest_leave_pdb(self):
        self._suspensions.close()


def _start_watchdog(config):
    """Start one that ends after this process; returns its address."""
    address = f"{tempfile.mkdtemp(prefix='unhang-')}/tests.sock"
    ours, theirs = os.pipe()
    config.add_cleanup(lambda: os.close(theirs))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
        code = _CODE.format(
            path=[str(pathlib.Path(entry).absolute()) for entry in sys.path],
            address=address,
            listener=listener.fileno(),
            lifeline=ours,
            owner=os.getpid(),
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("UNHANG_")}
        with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            subprocess.run(
                [sys.executable, "-I", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(listener.fileno(), ours),
                env=environment | _OPTIONS,
                start_new_session=True,
                timeout=_PATIENCE,
                check=True,
            )
    os.close(ours)
    return address
