"""Processes that were started without standard streams: nothing of ours gets the numbers of these."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from support import LONG

STREAMS = {0: "<&-", 1: ">&-", 2: "2>&-"}
SOME = [which for count in (1, 2, 3) for which in itertools.combinations(STREAMS, count)]

# Writes down what is open as a standard stream, in this process and in others.
LOOK = """
import json, os, sys, threading, time, traceback

def fail(*error):
    with open(sys.argv[1], "w") as file:
        traceback.print_exception(*error, file=file)

sys.excepthook = fail

def look(pid):
    for number in map(int, os.environ["CLOSED"]):
        try:
            with open(f"/proc/{pid}/fdinfo/{number}") as file:
                flags = int(next(line for line in file if line.startswith("flags:")).split()[1], 8)
            what = os.readlink(f"/proc/{pid}/fd/{number}")
            # Debian's libffi keeps its own file open, to read; the last can be neither read nor written.
            is_harmless = what == "/dev/null" or "/libffi." in what or flags & os.O_PATH
            if not is_harmless:
                yield number, what
        except FileNotFoundError:
            pass

def streams(pid):
    found = set(look(pid))
    give_up = time.monotonic() + 2
    while found and time.monotonic() < give_up:  # a file of procfs, or what is about to be moved, is gone in a moment
        threading.Event().wait(0.01)
        found &= set(look(pid))
    return dict(found)

def say(*pids):
    found = [streams(pid) for pid in (os.getpid(), *pids)]
    with open(sys.argv[1], "w") as file:
        json.dump(found, file)
"""
WORKER = (
    LOOK
    + """
import unhang
with unhang.expires(60):
    say(int(sys.argv[2]))
"""
)
CONFIGURED = (
    LOOK
    + """
import unhang

def is_ours(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return int(pid) != os.getpid() and os.environ["UNHANG_ADDRESS"].encode() in file.read()
    except OSError:  # it is gone
        return False

unhang.configure()
with unhang.expires(60):
    watchdogs = [int(one) for one in os.listdir("/proc") if one.isdigit() and is_ours(one)]
    assert watchdogs
    say(*watchdogs)
"""
)
SHARED = (
    LOOK
    + """
import unhang
server = unhang.SharedTimerServer(sys.argv[2] + "/sock", report_dir=sys.argv[2] + "/reports")
pid = os.fork()  # before the server's thread makes descriptors: a copy of one that is on its way would stay
if pid:
    server.start()
else:
    while not os.path.exists(server.address):
        os.sched_yield()
    unhang.configure(unhang.SharedTimerClient(server.address))
    with unhang.expires(60):
        say(os.getppid())
        os.kill(os.getpid(), 9)
os.waitpid(pid, 0)
server.stop()
"""
)
FIFO = (
    LOOK
    + """
import unhang
server = unhang.FileTimerServer(sys.argv[2] + "/pipe", "test", max_interval=60)
server.start()
unhang.configure(unhang.FileTimerClient(sys.argv[2] + "/pipe"))
with unhang.expires(60, "a"):
    say()
server.stop()
"""
)
QUEUE = (
    LOOK
    + """
import multiprocessing, unhang
low = [os.open("/", os.O_PATH) for _ in range(3)]  # the queue is the program's
queue = multiprocessing.get_context("fork").Queue()
for fd in low:
    if fd < 3:
        os.close(fd)
server = unhang.LocalTimerServer(queue, max_interval=60)
server.start()
unhang.configure(unhang.LocalTimerClient(queue))
with unhang.expires(60, "a"):
    say()
server.stop()
"""
)


def closed(which, command):
    """The command, started without these streams."""
    numbers = "".join(map(str, which))
    return ["sh", "-c", f'CLOSED={numbers} exec "$@" {" ".join(STREAMS[number] for number in which)}', "sh", *command]


def ended(program, result=None):
    """Wait for the program, which ends well."""
    output = program.communicate(timeout=LONG)
    said = result.read_text() if program.returncode and result and result.exists() else ""
    assert program.returncode == 0, (output, said)


def open_streams(result):
    """What the program has found of the streams that were closed, in each process that it has looked at."""
    return json.loads(result.read_text())


@pytest.mark.parametrize("which", SOME, ids=str)
@pytest.mark.parametrize("code", [CONFIGURED, SHARED, FIFO, QUEUE], ids=["configure", "shared", "fifo", "queue"])
def test_no_descriptor_of_ours_is_a_standard_stream(popen, tmp_path, which, code):
    """Neither in workers nor in servers within a program, nor in the watchdog that a program starts for itself."""
    tmp_path.chmod(0o700)
    command = [sys.executable, "-c", code, str(tmp_path / "found"), str(tmp_path)]
    ended(
        popen(closed(which, command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE),
        tmp_path / "found",
    )
    for streams in open_streams(tmp_path / "found"):
        assert streams == {}


@pytest.mark.parametrize("which", SOME, ids=str)
@pytest.mark.parametrize("options", [["run"], ["run", "--tail-stderr", "--report-dir", "none"]], ids=" ".join)
def test_unhang_run_and_its_command_have_no_descriptor_as_a_standard_stream(popen, tmp_path, which, options):
    """The command runs, without the streams that were closed for it."""
    code = WORKER.replace("int(sys.argv[2])", "os.getppid()")
    command = [sys.executable, "-m", "unhang", *options, "--", sys.executable, "-c", code, str(tmp_path / "found")]
    ended(
        popen(closed(which, command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE),
        tmp_path / "found",
    )
    worker, watchdog = open_streams(tmp_path / "found")
    kept = {"2"} if "--tail-stderr" in options else set()  # a pipe of the command's
    assert worker.keys() <= kept
    assert watchdog == {}


@pytest.mark.parametrize("which", SOME, ids=str)
def test_unhang_serve_has_no_descriptor_as_a_standard_stream(popen, tmp_path, which):
    """Nor has a worker that it serves."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "sock")
    serve = [sys.executable, "-m", "unhang", "serve", "--address", address]
    server = popen(closed(which, serve), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait = threading.Event()
    while not (tmp_path / "sock").exists() and server.poll() is None:
        wait.wait(0.01)
    command = [sys.executable, "-c", WORKER, str(tmp_path / "found"), str(server.pid)]
    environment = {**os.environ, "UNHANG_ADDRESS": address}
    ended(
        popen(
            closed(which, command),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ),
        tmp_path / "found",
    )
    for streams in open_streams(tmp_path / "found"):
        assert streams == {}
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=LONG)


PRINTS = """
import array, ctypes, sys, unhang
with unhang.expires(60, "a"):
    pass
data = array.array("q", range(1, 1001)).tobytes()
for number in (0, 1, 2):
    ctypes.CDLL(None).write(number, data, len(data))
timers = unhang.expires(60, "b").__enter__()
import unhang._worker.choose as choose
(page,) = choose._client.slots.channel._pages
words = memoryview(page.memory).cast("q")
armed = sum(0 < words[at] < 1 << 62 for at in range(32, len(words), 32))
timers.__exit__(None, None, None)
sys.exit(armed - 1)
"""


@pytest.mark.parametrize("which", SOME, ids=str)
def test_what_c_code_prints_arms_no_timer(popen, which, shared_server):
    """Binary data on a stream that is closed goes nowhere, and into no page."""
    environment = {**os.environ, "UNHANG_ADDRESS": shared_server.address}
    command = closed(which, [sys.executable, "-c", PRINTS])
    ended(
        popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    )
