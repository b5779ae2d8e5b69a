"""What becomes of timers when the interpreter ends: threads that Python stops there can never leave their blocks."""

import os
import subprocess
import sys
import textwrap

import pytest

import capabilities
from support import LONG

DAEMON = """
import ctypes, sys, threading, time
import unhang
with unhang.expires(60, "first"):
    pass
arrived = threading.Event()
def prefetch():
    while True:
        with unhang.expires(0.5, "prefetch"):
            arrived.set()
            time.sleep(0.01)
threading.Thread(target=prefetch, daemon=True).start()
arrived.wait()
"""
FINALIZER = """
class Model:
    def __del__(self, sleep=time.sleep):
        sleep(2)
sys.model = Model()
"""
EXIT_HANDLER = """
libc = ctypes.CDLL(None)
getattr(libc, "__cxa_atexit")(ctypes.cast(libc.sleep, ctypes.c_void_p), ctypes.c_void_p(2), None)
"""
EARLY = "import atexit, time\natexit.register(time.sleep, 2)\n"
STUCK = """
import atexit, time
def hang():
    import unhang
    with unhang.expires(0.5, "clean-up"):
        time.sleep(60)
atexit.register(hang)
"""
HANG_AT_THE_END = """
timer = unhang.expires(0.5, "end").__enter__()
sys.timer = timer
"""
PURE = pytest.param("1", id="plain")
COMPILED = pytest.param("", id="compiled")


def run(popen, server, code, pure):
    """The exit status of a program that is watched."""
    if not pure:
        capabilities.extension()
    environment = {**os.environ, "UNHANG_ADDRESS": server.address, "UNHANG_PURE": pure}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return popen(command, env=environment, stderr=subprocess.DEVNULL).wait(LONG)


@pytest.mark.parametrize("pure", [PURE, COMPILED])
@pytest.mark.parametrize(
    "code",
    [DAEMON + FINALIZER, DAEMON + EXIT_HANDLER, EARLY + DAEMON],
    ids=["finalizer", "exit handler", "early exit handler of Python"],
)
def test_a_program_that_ends_is_not_killed_for_the_block_of_a_daemon_thread(popen, shared_server, code, pure):
    """Its end may take longer than the timeout of that block."""
    assert run(popen, shared_server, code, pure) == 0


@pytest.mark.parametrize("pure", [PURE, COMPILED])
@pytest.mark.parametrize("code", [STUCK + DAEMON, DAEMON + STUCK], ids=["registered before", "registered after"])
def test_a_block_of_an_exit_handler_is_watched(popen, shared_server, code, pure):
    """It runs in the thread that ends the interpreter, beside a daemon thread or not."""
    assert run(popen, shared_server, code + "import time\n", pure) == -9


@pytest.mark.parametrize("pure", [PURE, COMPILED])
def test_a_block_that_the_main_thread_has_entered_is_watched_until_the_end(popen, shared_server, pure):
    """Nothing is disarmed where there is no thread that stops."""
    code = "import sys, time\nimport unhang\n" + HANG_AT_THE_END + FINALIZER.replace("2", "60")
    assert run(popen, shared_server, code, pure) == -9


def test_the_compiled_block_knows_the_main_threads_timers(popen, shared_server):
    """They are watched until the end also beside a daemon thread."""
    assert run(popen, shared_server, DAEMON + HANG_AT_THE_END + FINALIZER.replace("2", "60"), "") == -9


@pytest.mark.parametrize("pure", [PURE, COMPILED])
def test_a_thread_that_is_no_daemon_is_watched(popen, shared_server, pure):
    """The interpreter waits for it, and so does whoever waits for the program."""
    code = """
    import threading, time, unhang
    def work():
        with unhang.expires(0.5, "work"):
            time.sleep(60)
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    threading.Thread(target=work).start()
    """
    assert run(popen, shared_server, code, pure) == -9
