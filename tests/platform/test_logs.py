"""The log of a watchdog that is a process of its own: nobody who writes a line waits for whoever reads it."""

import contextlib
import errno
import logging
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from support import LONG, until
from unhang._platform import logs
from unhang._platform.line_writer import LineWriter
from unhang._platform.logs import Patient

HANG = "import time, unhang\nwith unhang.expires(0.3, 'stuck'): time.sleep(600)"
MANY = 4000


def record(text, *arguments):
    return logging.LogRecord("unhang", logging.WARNING, "", 0, text, arguments, None)


@contextlib.contextmanager
def open_both(kind):
    """The end that is read, and the end that is written: of a terminal or a pipe."""
    ends = kind()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        os.close(end)


def fill(writer, most=1 << 30):
    """Write single bytes until there is no room for more; returns how many."""
    own = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while count < most:
            count += os.write(own, b"x")
    os.close(own)
    return count


def fill_but_for_a_little(writer):
    """Fill a terminal that nobody reads, but for a few bytes: it counts as ready then, and takes no line."""
    with open_both(pty.openpty) as (_, other):
        room = fill(other)
    fill(writer, room - 20)


@contextlib.contextmanager
def read_by_a_thread(reader):
    """A list that gets what is read."""
    parts = []

    def read():
        with contextlib.suppress(OSError):
            while part := os.read(reader, 4096):
                parts.append(part)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield parts
    thread.join(LONG)


@pytest.mark.parametrize("kind", [pty.openpty, os.pipe])
def test_whoever_logs_never_waits_and_lines_are_whole(kind, monkeypatch):
    """Into a terminal or a pipe that nobody reads: what is read later is whole, and told is how much is missing."""
    monkeypatch.setattr(logs, "_MOST_WAITING", 100_000)
    reader, writer = kind()
    handler = Patient(writer)
    lines = [f"{number} {'x' * (50 + number % 250)}" for number in range(MANY)]
    logging_thread = threading.Thread(target=lambda: [handler.handle(record(line)) for line in lines], daemon=True)
    logging_thread.start()
    logging_thread.join(LONG)
    assert not logging_thread.is_alive()
    assert os.get_blocking(writer)
    with read_by_a_thread(reader) as parts:
        until(lambda: handler._taken == handler._put)
        handler.handle(record("the last one"))
        handler.close()
        os.close(writer)
    os.close(reader)
    *written, last = b"".join(parts).decode().splitlines()
    assert last == "unhang: the last one"
    number = 0
    for line in written:
        if told := re.fullmatch(r"unhang: lines that were lost: (\d+); too many waited to be written", line):
            number += int(told[1])
        else:
            assert line == f"unhang: {lines[number]}"
            number += 1
    assert len(written) < number == MANY


def test_a_watchdog_kills_though_nobody_reads_its_terminal(popen, tmp_path):
    """As one that an ssh has left behind which hangs: its loop has something to say, and a worker hangs."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "serve.sock")
    command = [sys.executable, "-m", "unhang", "serve", "--address", address, "--report-dir", "none", "--evidence", "0"]
    with contextlib.ExitStack() as stack:
        _, terminal = stack.enter_context(open_both(pty.openpty))
        fill_but_for_a_little(terminal)
        watchdog = popen(command, stdout=subprocess.PIPE, stderr=terminal)
        assert watchdog.stdout.readline() == f"UNHANG_ADDRESS={address}\n".encode()
        stranger = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        stranger.settimeout(LONG)
        stranger.connect(address)
        stranger.send(b"nonsense")
        stranger.recv(4096)
        worker = [sys.executable, "-c", HANG]
        for _ in range(2):
            done = subprocess.run(worker, env={**os.environ, "UNHANG_ADDRESS": address}, timeout=LONG, check=False)
            assert done.returncode == -signal.SIGTERM
        watchdog.terminate()
        assert watchdog.wait(LONG) == 0


def test_closing_waits_for_a_moment_only(monkeypatch):
    """What cannot be written until then is left."""
    monkeypatch.setattr(logs, "_PATIENCE", 0.05)
    with open_both(os.pipe) as (_, writer):
        fill(writer)
        handler = Patient(writer)
        handler.handle(record("line"))
        handler.close()
        assert handler._thread.is_alive()
        handler._writer.give_up()
        handler._thread.join(LONG)
        assert not handler._thread.is_alive()


def test_lines_that_cannot_be_written_are_counted(monkeypatch):
    """A disk that is full, a terminal that is closed: the next line that can be written says how many are missing."""
    tried, is_full = [], True

    def write(writer, lines):
        tried.append(lines)
        if is_full:
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(LineWriter, "write", write)
    handler = Patient(2)
    for number in range(3):
        handler.handle(record(str(number)))
    until(lambda: len(tried) == 3)
    is_full = False
    handler.handle(record("the last one"))
    handler.close()
    assert tried[-1] == b"unhang: lines that were lost: 3; they could not be written\nunhang: the last one\n"


def test_a_line_that_cannot_be_formatted_is_told(capfd):
    """In a line as any other: logging's own way is to write to standard error, and to wait for its reader."""
    with open_both(os.pipe) as (reader, writer):
        handler = Patient(writer)
        handler.handle(record("%d workers", "no number"))
        handler.close()
        assert os.read(reader, 4096) == b"unhang: TypeError in a line of the log: %d workers\n"
    assert capfd.readouterr().err == ""


def test_what_python_writes_by_itself_goes_the_same_way():
    """Warnings, and what finalizers raise, in whatever thread they come: marked, and without waiting."""
    code = """
import warnings
from unhang._platform.logs import log_to_stderr
class Ended:
    def __del__(self):
        raise ValueError("of a finalizer")
log_to_stderr()
warnings.warn("a warning")
Ended()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    begun = [line for line in done.stderr.splitlines() if line.startswith("unhang: ")]
    assert [words in line for words, line in zip(["a warning", "Ended.__del__"], begun, strict=True)] == [True, True]
    assert "ValueError: of a finalizer" in done.stderr


def test_a_terminal_does_not_stop_whoever_logs_from_the_background():
    """One with TOSTOP stops background processes that write: a watchdog would be stopped with all its workers."""
    code = """
import os, subprocess, sys, termios
terminal = os.open(sys.argv[1], os.O_RDWR)  # of a session without one, so it becomes this one's
mode = termios.tcgetattr(terminal)
mode[3] |= termios.TOSTOP
termios.tcsetattr(terminal, termios.TCSANOW, mode)
log = "import logging; from unhang._platform.logs import *; log_to_stderr(); logging.getLogger('unhang').error('line')"
child = subprocess.Popen([sys.executable, "-c", log], stderr=terminal, process_group=0)
_, status = os.waitpid(child.pid, os.WUNTRACED)
child.kill()
assert os.WIFEXITED(status), status
"""
    with open_both(pty.openpty) as (reader, terminal):
        command = [sys.executable, "-c", code, os.ttyname(terminal)]
        subprocess.run(command, check=True, timeout=30, start_new_session=True)
        assert os.read(reader, 4096) == b"unhang: line\r\n"


def cut_short(monkeypatch, room):
    """Let a disk have room for so many bytes, and then for none."""
    real, left = os.write, [room]

    def write(fd, data):
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        written = real(fd, data[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    return left


def test_a_line_that_a_full_disk_has_cut_is_brought_to_its_end(tmp_path, monkeypatch):
    """In front of the next one, as soon as there is room; lines that found none at all are not there."""
    with open(tmp_path / "log", "wb") as file:
        writer = LineWriter(file.fileno())
        left = cut_short(monkeypatch, 8)
        writer.write(b"first\n")
        writer.write(b"second\n")
        for _ in range(2):
            with pytest.raises(OSError, match="full"):
                writer.write(b"third\n")
        left[0] = 100
        writer.write(b"fourth\n")
    assert (tmp_path / "log").read_bytes() == b"first\nsecond\nfourth\n"


def test_a_descriptor_that_others_have_made_non_blocking_is_waited_for():
    """Its flags are left as they are."""
    with open_both(os.pipe) as (reader, writer):
        fill(writer)
        os.set_blocking(writer, False)
        written = threading.Thread(target=LineWriter(writer).write, args=(b"line\n",))
        written.start()
        text = b""
        os.set_blocking(reader, True)
        while not text.endswith(b"line\n"):
            text += os.read(reader, 65536)
        written.join(LONG)
        assert not written.is_alive()
        assert not os.get_blocking(writer)
