"""A hang under pytest, in a process whose standard error pytest has replaced: the report is seen all the same."""

import os
import pty
import subprocess
import sys

import pytest

HANGS = "import time, unhang\ndef test_it():\n    with unhang.expires(0.3, 'stuck'): time.sleep(600)\n"
CONFIGURE = "import unhang\nunhang.configure()\n"
IN_A_FIXTURE = """
import pytest, unhang
@pytest.fixture(autouse=True)
def watched(capfd):
    unhang.configure()
"""
# Captures as pytest does, without it.
CAPTURES = (
    f"import os, tempfile\nfile = tempfile.TemporaryFile()\nos.dup2(file.fileno(), 2)\n{CONFIGURE}{HANGS}\ntest_it()\n"
)

TAKES_A_TERMINAL = """
import os, fcntl, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "program.py"])
"""


def environment():
    """That of a user: pytest's variables are about the process that runs these tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


@pytest.mark.parametrize("conftest", [CONFIGURE, IN_A_FIXTURE], ids=["conftest", "fixture"])
@pytest.mark.parametrize("options", [[], ["-s"], ["--capture=sys"], ["--capture=tee-sys"], ["-n", "2"]], ids=" ".join)
def test_the_report_of_a_hung_test_is_seen(tmp_path, options, conftest):
    """However pytest captures, and in a process that xdist has started: on the standard error of pytest itself."""
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_hangs.py").write_text(HANGS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=30, check=False
    )
    assert "hangs in 'stuck'" in done.stderr, done.stdout + done.stderr
    assert "test_hangs.py:3 test_it" in done.stderr


def test_what_else_captures_leaves_the_terminal(tmp_path, popen):
    """A report that would go into a file without a name goes to the controlling terminal."""
    (tmp_path / "program.py").write_text(CAPTURES)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", TAKES_A_TERMINAL]
    popen(command, cwd=tmp_path, env=environment(), stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(theirs)
    seen = b""
    while b"test_it" not in seen:
        seen += os.read(ours, 1000)
    os.close(ours)
    assert b"hangs in 'stuck'" in seen
