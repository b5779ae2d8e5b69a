"""Events as lines of JSON: whole lines, in the file that stands at the path, and never at the loop's expense."""

import contextlib
import errno
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import capabilities
import unhang
from support import in_time, until
from unhang.observe import json_lines
from unhang.observe.json_lines import EventsError, JsonLines, line_of
from unhang.observe.line_targets import File, Stream
from unhang.report.live import Event

EVENT = Event(time="2026-01-01T00:00:00.000Z", event="killed", at=1.5, pid=7, scope="step", signal="SIGTERM")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=2000)


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def path(tmp_path):
    tmp_path.chmod(0o700)
    return str(tmp_path / "events.jsonl")


def test_each_event_is_a_line(path):
    """With what is known of it, and nothing else; the file is this user's alone."""
    with JsonLines(path) as sink:
        sink(EVENT)
        sink(Event(time="t", event="stopped", at=2.0))
    assert lines_of(path) == [
        {"time": EVENT.time, "event": "killed", "at": 1.5, "pid": 7, "scope": "step", "signal": "SIGTERM"},
        {"time": "t", "event": "stopped", "at": 2.0},
    ]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_it_appends(path):
    """What stands in the file stays there; what comes behind close() is dropped."""
    for _ in range(2):
        sink = JsonLines(path)
        sink(EVENT)
        sink.close()
        sink.close()
        sink(EVENT)
    assert len(lines_of(path)) == 2


@given(st.builds(Event, time=TEXT, event=TEXT, at=st.floats(allow_nan=False, allow_infinity=False), scope=TEXT,
                 host=TEXT, job=TEXT, detail=TEXT, report=TEXT, hang=TEXT, signal=TEXT))  # fmt: skip
def test_a_line_fits_a_pipe(event):
    """Whatever is in an event: one line, of 4096 bytes at most, that reads back."""
    event = msgspec.structs.replace(event, time=event.time[:30])
    line = line_of(event)
    assert len(line) <= 4096
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line, type=Event).pid is None


def test_a_file_that_is_moved_away_is_begun_again(path):
    """As logrotate does it, without a signal; likewise when it is removed."""
    with JsonLines(path) as sink:
        sink(EVENT)
        until(lambda: os.stat(path).st_size)
        os.rename(path, path + ".1")
        sink(EVENT)
        until(lambda: os.path.exists(path) and os.stat(path).st_size)
        os.unlink(path)
        sink(EVENT)
        until(lambda: os.path.exists(path) and os.stat(path).st_size)
    assert len(lines_of(path)) == len(lines_of(path + ".1")) == 1


def test_nobody_can_divert_it(path, tmp_path, caplog):
    """A link that takes the file's place is not followed: lines go on into the old file, which is told once."""
    other = tmp_path / "other"
    other.touch()
    file = File(path)
    file.write(b"1\n")
    os.rename(path, path + ".1")
    os.symlink(other, path)
    file.write(b"2\n")
    file.write(b"3\n")
    file.close()
    with open(path + ".1", "rb") as old:
        assert old.read() == b"1\n2\n3\n"
    assert not other.stat().st_size
    assert len(caplog.records) == 1


def make_link(path, directory):
    (directory / "other").touch()
    os.symlink(directory / "other", path)


def make_hard_link(path, directory):
    (directory / "other").touch()
    os.link(directory / "other", path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_link, "a link"),
        (make_hard_link, "another name"),
        (lambda path, _: os.mkfifo(path), "not a file"),
        (lambda path, _: os.mkdir(path), "not a file"),
        (lambda _, directory: directory.chmod(0o777), "anybody may write"),
        (lambda _, directory: directory.rmdir(), "No such file"),
    ],
)
def test_what_is_no_file_of_ours_is_refused(path, tmp_path, make, words):
    """At once, with the reason; a FIFO without reader does not stall it."""
    make(path, tmp_path)
    with pytest.raises(EventsError, match=words) as raised:
        JsonLines(path)
    tmp_path.mkdir(exist_ok=True)
    assert raised.value.errno == errno.EPERM
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_a_file_of_another_user_is_refused(path, other_user):
    """Whoever owns it could read and change what is written."""
    with open(path, "w"):
        os.chown(path, other_user, -1)
    with pytest.raises(EventsError, match="another user"):
        JsonLines(path)


def test_a_device_is_refused():
    """It is not even opened."""
    if os.stat("/dev").st_uid != 0:
        capabilities.lacks("root", "in a user namespace /dev belongs to none of its users")
    with pytest.raises(EventsError, match="not a file"):
        JsonLines("/dev/null")


class Gate:
    """A target that lets lines through when it is opened."""

    name = "gate"

    def __init__(self):
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.lines = []

    def write(self, line):
        self.reached.set()
        self.opened.wait()
        self.lines.append(json.loads(line))

    def give_up(self):
        self.opened.set()

    def close(self):
        pass


def test_events_that_come_too_fast_are_counted(monkeypatch, caplog):
    """While nothing can be written 4096 of them wait; the others are told by their number, in a line and in the log."""
    gate = Gate()
    monkeypatch.setattr(json_lines, "target_of", lambda name: gate)
    sink = JsonLines("gate")
    sink(EVENT)
    assert gate.reached.wait(30)
    for _ in range(4096 + 10):
        sink(EVENT)
    gate.opened.set()
    sink.close(30)
    kinds = [line["event"] for line in gate.lines]
    assert kinds.count("killed") == 1 + 4096
    (lost,) = [line for line in gate.lines if line["event"] == "lost events"]
    assert lost["count"] == 10
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_closing_does_not_wait_for_ever(monkeypatch):
    """What cannot be written within the patience is left."""
    gate = Gate()
    monkeypatch.setattr(json_lines, "target_of", lambda name: gate)
    sink = JsonLines("gate")
    sink(EVENT)
    sink.close(0.05)
    assert gate.opened.is_set()


def test_a_full_disk_costs_events_and_nothing_else(path):
    """No half line stays; when there is room again, a line says how many are missing."""
    code = """
import os, resource, signal, sys
from unhang.observe.json_lines import JsonLines
from unhang.report.live import Event
event = Event(time="t", event="connect", at=1.0, detail="x" * 100)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
sink = JsonLines(sys.argv[1])
def written(count):
    for _ in range(count):
        sink(event)
    while sink._waiting.qsize():
        os.sched_yield()
written(10)
while sink._lost != 7:
    os.sched_yield()
assert open(sys.argv[1]).read().endswith("}\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
written(1)
sink.close(30)
"""
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=30)
    lines = lines_of(path)
    assert [line["event"] for line in lines] == ["connect"] * 3 + ["lost events", "connect"]
    assert (lines[3]["count"], lines[3]["detail"]) == (7, "there is no room for a whole line")


def test_half_a_line_that_cannot_be_taken_back_stands_alone(path, monkeypatch):
    """In a file that can only be appended to, what comes next begins a line of its own."""
    file = File(path)
    monkeypatch.setattr(os, "ftruncate", lambda fd, size: (_ for _ in ()).throw(PermissionError(1, "no")))
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    with pytest.raises(OSError, match="no room"):
        file.write(b"first\n")
    monkeypatch.setattr(os, "write", real)
    file.write(b"second\n")
    file.close()
    with open(path, "rb") as written:
        assert written.read() == b"fir\nsecond\n"


def test_a_pipe_that_nobody_reads_holds_up_nobody():
    """It is waited for, in the sink's own thread, until the sink is closed."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    stream = Stream("pipe", writer)

    def write():
        with pytest.raises(OSError, match="nobody reads it"):
            stream.write(b"line\n")

    thread = threading.Thread(target=write)
    thread.start()
    stream.give_up()
    thread.join(30)
    assert not thread.is_alive()
    stream.close()
    os.close(reader)
    os.close(writer)


def test_standard_error_is_a_target():
    """``-`` is written to whatever it is; what waits is written when the program ends, close() or not."""
    code = """
from unhang.observe.json_lines import JsonLines
from unhang.report.live import Event
for name in ("-", "/dev/stderr", "/dev/stdout"):
    sink = JsonLines(name)
    sink(Event(time="t", event=name, at=1.0))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert {json.loads(line)["event"] for line in done.stderr.splitlines()} == {"-", "/dev/stderr"}
    assert json.loads(done.stdout)["event"] == "/dev/stdout"
    closed = subprocess.run(
        ["/bin/sh", "-c", 'exec 2>&-; exec "$@"', "sh", sys.executable, "-c", code], check=False, timeout=30
    )
    assert closed.returncode == 1


def test_events_of_a_watchdog(path, serve_shared, start):
    """A worker comes, hangs and is killed: each is an event, with who, where, how long, and how."""
    from workers import sleep_in_block

    sink = JsonLines(path)
    server = serve_shared(observers=[sink], evidence=0)
    worker = start(sleep_in_block, unhang.SharedTimerClient(server.address), 0.2)
    assert worker.ended() == -signal.SIGTERM
    server.stop()
    sink.close()
    lines = lines_of(path)
    kinds = [line["event"] for line in lines]
    assert kinds[0] == "started"
    assert kinds[-1] == "stopped"
    assert {"connect", "killed", "disconnect"} <= set(kinds)
    killed = lines[kinds.index("killed")]
    assert killed["pid"] == worker.pid
    assert killed["signal"] == "SIGTERM"
    assert killed["after"] == pytest.approx(0.2)
    assert 0 <= killed["late"] <= killed["waited"]


def test_events_of_a_named_pipes_server(path, pipe_path, start):
    """As its log_event it writes lines of the same kind."""
    from workers import arm_and_wait

    sink = JsonLines(path)
    server = unhang.FileTimerServer(pipe_path, "test", log_event=sink.log_event)
    server.start()
    worker = start(arm_and_wait, unhang.FileTimerClient(pipe_path), 0.2)
    assert worker.ended() == -signal.SIGKILL
    server.stop()
    sink.close()
    lines = lines_of(path)
    assert [line["event"] for line in lines] == ["started", "expired", "killed", "stopped"]
    assert (lines[2]["pid"], lines[2]["scope"], lines[2]["signal"]) == (worker.pid, "scope", "SIGKILL")
    assert lines[1]["late"] >= 0


def test_a_scope_that_is_no_text_is_written_all_the_same(path):
    """A request over a named pipe may hold anything that JSON can say."""
    with JsonLines(path) as sink:
        sink.log_event("timer expired", unhang.FileTimerRequest(7, "\ud800", 0.0, 9))
        sink.log_event("something else", None)
    assert [(line["event"], line.get("scope")) for line in lines_of(path)] == [
        ("expired", "\\ud800"),
        ("something else", None),
    ]


HANG = "import time, unhang\nwith unhang.expires(0.3, 'stuck'): time.sleep(600)"


def unhang_run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "unhang", "run", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


def test_unhang_run_writes_events(path):
    """--events FILE: all of them, from the start of the watchdog to its end."""
    assert unhang_run("--events", path, "--", sys.executable, "-c", HANG).returncode == 124
    kinds = in_time(line["event"] for line in lines_of(path))
    assert kinds[:2] == ["started", "connect"]
    assert {"report", "killed", "ended", "disconnect"} <= set(kinds)
    assert kinds[-1] == "stopped"


def test_the_environment_says_it_too():
    """UNHANG_EVENTS=-: to standard error, among the other lines."""
    done = unhang_run("--", "true", UNHANG_EVENTS="-")
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert in_time(line["event"] for line in lines) == ["started", "stopped"]


def test_a_bad_target_is_told_at_once(tmp_path):
    """Status 125, one line, and the command is not started."""
    done = unhang_run("--events", str(tmp_path), "--", "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    assert "not a file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_watchdog_of_a_program_writes_them_too(path):
    """That of configure() reads UNHANG_EVENTS; what it cannot write to is no reason not to watch."""
    code = "import unhang; unhang.configure()\n" + HANG
    for target in (path, "/dev/null"):
        environment = {**os.environ, "UNHANG_EVENTS": target}
        worker = subprocess.run([sys.executable, "-c", code], env=environment, timeout=30, check=False)
        assert worker.returncode == -signal.SIGTERM
    until(lambda: lines_of(path)[-1]["event"] == "stopped")
    assert "killed" in {line["event"] for line in lines_of(path)}


def test_a_reader_that_stands_still_delays_no_kill():
    """Standard error is a full pipe: workers are killed all the same, and the end is not held up."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    command = [sys.executable, "-m", "unhang", "run", "--events", "-", "--", sys.executable, "-c", HANG]
    done = subprocess.run(command, stderr=writer, timeout=30, check=False)
    assert done.returncode == 124
    os.close(reader)
    os.close(writer)
