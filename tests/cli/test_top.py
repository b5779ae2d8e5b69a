"""`unhang top` in a real terminal, with real keys, a real watchdog and real workers."""

import contextlib
import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import support
import workers
from unhang.cli.top_keys import Keys

TOP = [sys.executable, "-m", "unhang", "top"]
# Makes the terminal on its standard input its own, then runs something else.
LAUNCH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
ENTERS, LEAVES = b"\x1b[?1049h", b"\x1b[?1049l"
UP, DOWN, END = b"\x1b[A", b"\x1b[B", b"\x1b[F"


class Terminal:
    """A terminal of 80 x 24 with a process in it; what is on it is known from the start of each picture on."""

    def __init__(self, popen, command, environment):
        self._master, self._slave = pty.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(self._slave)
        self.seen = b""
        self.process = popen(
            [sys.executable, "-c", LAUNCH, *command],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", **environment},
        )

    def resize(self, columns, lines):
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._height = lines

    def type(self, keys):
        os.write(self._master, keys)

    @property
    def lines(self):
        """What is on the screen: what was drawn last as a whole."""
        drawn = self.seen.split(b"\x1b[H")
        whole = next((each for each in reversed(drawn) if each.count(b"\r\n") == self._height - 1), drawn[-1])
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", whole.decode("utf-8", "ignore"))
        return [line.rstrip() for line in text.split("\r\n")]

    def until(self, condition):
        """Wait until something is true of the lines; returns them."""
        give_up = time.monotonic() + support.LONG
        while not condition(self.lines):
            assert time.monotonic() < give_up, "\n".join(self.lines)
            self._read(give_up)
        return self.lines

    def shows(self, *texts):
        return self.until(lambda lines: all(any(text in line for line in lines) for text in texts))

    def shows_no_more(self, text):
        return self.until(lambda lines: not any(text in line for line in lines))

    def _read(self, give_up):
        if select.select([self._master], [], [], max(0.0, min(0.2, give_up - time.monotonic())))[0]:
            with contextlib.suppress(OSError):
                self.seen += os.read(self._master, 65536)

    def ended(self):
        """The exit status; what was written last is read."""
        give_up = time.monotonic() + support.LONG
        while self.process.poll() is None:
            assert time.monotonic() < give_up, "\n".join(self.lines)
            self._read(give_up)
        while select.select([self._master], [], [], 0)[0]:
            self._read(give_up)
        return self.process.returncode

    @property
    def is_as_before(self):
        """Whether keys are what they were, and so is the screen."""
        is_left = self.seen.rfind(LEAVES) > self.seen.rfind(ENTERS)
        return is_left and termios.tcgetattr(self._slave) == self.before

    def close(self):
        self.process.end()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def terminal(popen):
    opened = []

    def open_terminal(*command, **environment):
        opened.append(Terminal(popen, command, environment))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


@pytest.fixture
def crowd(shared_client, start):
    """Three workers in blocks of their own names."""
    crowd = [start(workers.step_by_step, shared_client) for _ in range(3)]
    for worker, name in zip(crowd, ("alpha", "beta", "gamma"), strict=True):
        assert worker.heard() == "ready"
        worker.told("enter", 600, name)
    return crowd


@pytest.fixture
def top(terminal, shared_server, crowd):
    """The view of them, as it is when all are shown."""
    view = terminal(*TOP, "--interval", "0.5", UNHANG_ADDRESS=shared_server.address)
    view.shows("3 workers", "alpha", "beta", "gamma", "q quit")
    return view


def test_workers_and_their_blocks(top, crowd):
    """Who is in which block; a block that is left is gone, another one comes."""
    lines = top.shows("3 timers armed")
    assert len(lines) == 24
    assert any(str(crowd[0].pid) in line and "alpha" in line and "/10min" in line for line in lines)
    crowd[0].told("leave")
    top.shows("no block", "2 timers armed")
    crowd[0].told("enter", 600, "delta")
    top.shows("delta")
    pid = crowd[1].pid
    crowd[1].end()
    top.shows("2 workers", f"worker {pid} in 'beta'", "SIGKILL")


def report_in(lines):
    return re.findall(r"report [0-9a-f]{8}", "\n".join(lines))


def stacks(top, but=()):
    """Ask for stacks, and wait for a report that was not there before."""
    top.type(b"t")
    return top.until(lambda lines: report_in(lines) not in ([], but))


def test_stacks_of_the_selected_worker(top, crowd):
    """With a key, while it goes on: where it is; back again with another one."""
    top.type(b"/gamma\r")
    top.shows_no_more("alpha")
    lines = stacks(top)
    while not any("step_by_step" in line for line in lines):  # there is a time limit, which a busy machine may not keep
        lines = stacks(top, but=report_in(lines))
    assert any(f"worker {crowd[2].pid} is in 'gamma'" in line for line in lines)
    top.shows("Esc back")
    top.type(b"\x1b")
    top.shows("2 workers filtered out")
    crowd[2].told("leave")


def test_keys(top, crowd):
    """Select, sort, filter, pause, help."""
    first, second, third = map(str, sorted(worker.pid for worker in crowd))
    top.type(b"s" * 4)
    top.shows("sort: pid")
    top.until(lambda lines: lines[4].startswith(">") and lines[4].split()[2] == first)
    top.type(DOWN)
    top.until(lambda lines: lines[5].startswith(">") and second in lines[5])
    top.type(END)
    top.until(lambda lines: lines[6].startswith(">") and third in lines[6])
    top.type(b"/al")
    top.shows("filter: al")
    top.shows_no_more("gamma")
    top.type(b"\x1b")
    top.shows("gamma", "sort: pid")
    top.type(b"?")
    top.shows("select a worker")
    top.type(b"q")
    top.shows("alpha")
    top.type(b"p")
    top.shows("PAUSED")
    crowd[0].told("enter", 600, "omega")
    top.type(b"p")
    top.shows("p pause", "+1")


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda top: top.type(b"q"), 0),
        (lambda top: top.type(b"\x03"), 0),
        (lambda top: top.process.terminate(), 128 + signal.SIGTERM),
        (lambda top: top.process.send_signal(signal.SIGHUP), 128 + signal.SIGHUP),
    ],
    ids=["q", "Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_the_terminal_is_as_it_was(top, end, status):
    """However it ends."""
    assert not top.is_as_before
    end(top)
    assert top.ended() == status
    assert top.is_as_before


def test_the_terminal_is_as_it_was_after_an_error(terminal, shared_server):
    """Of ours; it is told behind that, and the status is 125."""
    code = """
import sys
from unhang.cli import top
from unhang.cli.main import main
def lines(self):
    raise LookupError("of ours")
top.Screen.lines = lines
sys.argv = ["unhang", "top"]
main()
"""
    view = terminal(sys.executable, "-c", code, UNHANG_ADDRESS=shared_server.address)
    assert view.ended() == 125
    assert view.is_as_before
    assert b"LookupError: of ours" in view.seen.partition(LEAVES)[2]


def test_job_control(terminal, shared_server, crowd):
    """Ctrl-Z gives the shell back with its terminal; fg draws all again."""
    shell = terminal("bash", "--norc", "--noprofile", "-i", UNHANG_ADDRESS=shared_server.address, PS1="prompt: ")
    shell.shows("prompt:")
    shell.type(shlex.join(TOP).encode() + b"\n")
    shell.shows("q quit", "alpha")
    shell.type(b"\x1a")
    shell.until(lambda _: b"Stopped" in shell.seen.rpartition(LEAVES)[2])
    before = len(shell.seen)
    shell.type(b"echo o''k\n")
    shell.until(lambda _: b"ok\r\n" in shell.seen[before:])
    shell.type(b"fg\n")
    shell.until(lambda lines: ENTERS in shell.seen[before:] and any("q quit" in line for line in lines))
    shell.type(b"q")
    shell.until(lambda _: LEAVES in shell.seen[before:])
    shell.type(b"echo status $?\n")
    shell.until(lambda _: b"status 0" in shell.seen[before:])


def test_another_size(top):
    """It is drawn anew at once, and never beyond."""
    top.resize(120, 30)
    top.until(lambda lines: len(lines) == 30 and max(map(len, lines)) > 80)
    top.resize(40, 8)
    top.until(lambda lines: len(lines) == 8 and max(map(len, lines)) <= 40)
    top.resize(9, 2)
    top.until(lambda lines: len(lines) == 2 and max(map(len, lines)) <= 9)


def test_a_watchdog_that_goes_and_comes(top, shared_server, crowd):
    """It is said at once, with the last picture below it; when one is there again the view goes on."""
    shared_server.stop()
    top.shows("looking for one again", "alpha")
    shared_server.start()
    top.shows_no_more("looking for one again")
    # A worker finds it when it arms a timer.
    support.until(lambda: shared_server.workers > 0, lambda: crowd[0].told("enter", 600, "again"))
    top.shows("1 worker ", "alpha +")


def test_a_watchdog_that_is_stopped(terminal, start, stopped, tmp_path):
    """It does not answer: keys do all the same. When it goes on, so does the view."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "watchdog.sock")
    watchdog = start(workers.serve_shared, address)
    assert watchdog.heard() == "started"
    view = terminal(*TOP, "--address", address)
    view.shows("no worker has come yet")
    stopped(watchdog.pid)
    view.type(b"?")
    view.shows("select a worker")
    view.type(b"q")
    view.shows("LOST the watchdog", "no worker has come yet")
    os.kill(watchdog.pid, signal.SIGCONT)
    view.shows_no_more("LOST")


def test_a_watchdog_that_is_stopped_before(terminal, start, stopped, tmp_path):
    """It is said so while there is nothing else to show; when it goes on, so does the view."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "watchdog.sock")
    watchdog = start(workers.serve_shared, address)
    assert watchdog.heard() == "started"
    stopped(watchdog.pid)
    view = terminal(*TOP, "--address", address)
    view.until(lambda lines: "does not answer" in " ".join(lines) and lines[-1] == "q quit")
    os.kill(watchdog.pid, signal.SIGCONT)
    view.shows("UNHANG_ADDRESS", "? help")


def test_q_without_a_picture(terminal, start, stopped, tmp_path):
    """Ends it as always."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "watchdog.sock")
    watchdog = start(workers.serve_shared, address)
    assert watchdog.heard() == "started"
    stopped(watchdog.pid)
    view = terminal(*TOP, "--address", address)
    view.shows("q quit")
    view.type(b"q")
    assert view.ended() == 0
    assert view.is_as_before


def test_a_watchdog_that_refuses(terminal, shared_server, monkeypatch):
    """Status 125 and its reason, with the terminal as it was."""
    monkeypatch.setattr("unhang._watchdog.viewers.VERSION", 0)
    view = terminal(*TOP, "--address", shared_server.address)
    assert view.ended() == 125
    assert view.is_as_before
    assert b"this watchdog 0: use one of both" in view.seen.partition(LEAVES)[2].replace(b"\r\n", b"")


def test_stacks_of_a_worker_of_the_watchdog_before(top, shared_server, crowd):
    """While it stands still, a worker stays selected, whatever number another watchdog gives it."""
    top.type(b"p")
    top.shows("PAUSED")
    shared_server.stop()
    top.shows("LOST the watchdog")
    shared_server.start()
    for count, worker in enumerate(reversed(crowd), 1):
        support.until(
            lambda count=count: shared_server.workers >= count, lambda w=worker: w.told("enter", 600, "again")
        )
    top.shows_no_more("LOST")
    top.type(DOWN + b"t")
    top.shows(f"no stacks of worker {crowd[1].pid}: the watchdog has been started again since")
    assert any(line.startswith(">") and "beta" in line for line in top.lines)
    top.type(b"p")
    top.until(lambda lines: any(line.startswith(">") and f" {crowd[1].pid} " in line and "+" in line for line in lines))


def test_stacks_while_the_watchdog_is_lost(top, shared_server):
    """There are none, and it is said so at once."""
    shared_server.stop()
    top.shows("LOST the watchdog")
    top.type(b"t")
    top.shows("no stacks of worker", "the watchdog is lost")


def run(*arguments, **environment):
    return subprocess.run(
        [*TOP, *arguments], capture_output=True, text=True, timeout=30, check=False, env={**os.environ, **environment}
    )


def test_no_terminal():
    """Status 125, and one line that points to what there is for scripts."""
    done = run()
    assert done.returncode == 125
    assert "unhang status" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_watchdog(terminal, tmp_path):
    """Status 125 and a reason; the screen is left alone."""
    tmp_path.chmod(0o700)
    view = terminal(*TOP, "--address", str(tmp_path / "none.sock"))
    assert view.ended() == 125
    assert b"nobody listens there" in view.seen
    assert ENTERS not in view.seen


def test_every_option_has_a_twin_in_the_environment():
    """Help names it."""
    usage = run("--help").stdout
    options = [line for line in usage.splitlines() if line.startswith("  --")]
    assert " ".join(usage.split()).count("env var: UNHANG_") == len(options) == 2


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"qS/", ["q", "S", "/"]),
        (b"\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[F\x1b[1~\x1b[4~", ["page up", "page down", "home", "end", "home", "end"]),
        (b"\r\x7f\x08", ["enter", "backspace", "backspace"]),
        ("日é".encode(), ["日", "é"]),
        (b"\x1b[1;5A\x1b[200~x", ["x"]),
        (b"\x00\x01\xff", []),
        (b"\x1b\x1b[A", ["escape", "up"]),
        (b"\x1bx", ["escape", "x"]),
    ],
)
def test_bytes_become_keys(data, keys):
    """At once, and byte by byte."""
    assert Keys().feed(data) == keys
    slow = Keys()
    assert [key for byte in data for key in slow.feed(bytes([byte]))] == keys


def test_an_escape_alone():
    """Is a key when nothing follows."""
    keys = Keys()
    assert keys.feed(b"\x1b") == []
    assert keys.waits
    assert keys.end() == ["escape"]
    assert not keys.waits


@given(st.lists(st.binary(max_size=6) | st.sampled_from([b"\x1b", b"[", b"O", b"1;", b"~", b"A"]), max_size=12))
def test_any_bytes_are_keys_or_nothing(parts):
    """However they come, nothing is lost behind nonsense."""
    keys = Keys()
    for part in parts:
        assert all(len(key) == 1 or key.isprintable() for key in keys.feed(part))
    keys.end()
    assert keys.feed(b"~q")[-1:] == ["q"]
