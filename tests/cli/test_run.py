"""``unhang run`` and ``unhang serve``, as a user runs them."""

import contextlib
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import capabilities
from support import HANDLE_SIGNALS, until
from unhang.report.load import load

UNHANG = [sys.executable, "-m", "unhang"]
HANG = "import time, unhang\nwith unhang.expires(0.3, 'stuck'): time.sleep(600)"


def run(*arguments, **environment):
    return subprocess.run(
        [*UNHANG, "run", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


def python(code):
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("ignored", ["", "PIPE", "XFSZ", "PIPE XFSZ INT USR1", "HUP TERM"])
def test_the_command_ignores_what_run_was_given_to_ignore(ignored):
    """And nothing else: as `timeout` and `env` hand on what a shell, or systemd, ignores; no more is blocked."""
    alone, under = [], []
    for found, before in ((alone, []), (under, [*UNHANG, "run", "--report-dir", "none", "--"])):
        looks = shlex.join([*before, "grep", "^Sig[BI]", "/proc/self/status"])
        shell = ["/bin/sh", "-c", f"trap '' {ignored or '0'}; {looks}; exit 0"]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=30, check=True)
        # The two numbers that the C library keeps to itself are as it likes them.
        found += [int(line.split()[1], 16) & ~0x180000000 for line in done.stdout.splitlines()]
    assert under == alone
    assert len(alone) == 2


@pytest.mark.parametrize(("name", "status"), [("no-such-command", 127), ("may-not-be-run", 126)])
def test_a_directory_of_path_that_may_not_be_entered_is_passed_over(tmp_path, monkeypatch, name, status):
    """What is nowhere was not found; what is there, and may not be run, cannot be run."""
    closed, opened = tmp_path / "closed", tmp_path / "opened"
    for directory in (closed, opened):
        directory.mkdir()
    (opened / "may-not-be-run").write_text("#!/bin/sh\n")
    closed.chmod(0)
    monkeypatch.setenv("PATH", f"{closed}:{opened}:{os.environ['PATH']}")
    # Root enters any directory, unless it has lost these rights.
    setpriv = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*setpriv, *UNHANG, "run", "--", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    closed.chmod(0o700)
    assert done.returncode == status, done.stderr


def test_a_command_that_hangs_is_killed():
    """Status 124, and a report of twenty lines at most that says who was stuck where, and where its file is."""
    done = run("--", *python(HANG))
    assert done.returncode == 124
    lines = done.stderr.splitlines()
    assert len(lines) <= 21
    assert re.match(r"unhang: worker \d+ hangs in 'stuck' for \d+\.?\d* s: sleep, <string>:", lines[0])
    assert Path(lines[-1].removeprefix("report: ")).is_file()


def test_a_command_that_gets_over_it_has_its_own_status():
    """A worker was killed, its parent started it again, all went well: 0. It did not go well: 124."""
    again = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HANG!r}]); sys.exit(int(sys.argv[1]))"
    assert run("--", *python(again), "0").returncode == 0
    assert run("--", *python(again), "3").returncode == 124


def test_a_command_that_is_stopped_behind_a_hang_was_stopped(popen):
    """It had got over it, and then whoever runs it ended it: the status says that, and not that it hung."""
    again = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {HANG!r}])"
    again += "; print(flush=True); time.sleep(600)"
    with popen([*UNHANG, "run", "--", *python(again)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as job:
        job.stdout.readline()
        job.send_signal(signal.SIGTERM)
        assert job.wait(30) == 128 + signal.SIGTERM


def test_options_of_the_command_are_the_commands():
    """With and without the two dashes."""
    assert run("sh", "-c", "exit 5").returncode == 5
    assert run("--", "echo", "--after", "1").stdout == "--after 1\n"
    assert run("echo", "--no-such-option", "-x").stdout == "--no-such-option -x\n"


def test_a_budget_for_the_whole_command():
    """--after ends a command that knows nothing of unhang, with what it has started; in time, nothing happens."""
    begun = time.monotonic()
    done = run("--after", "500ms", "--", "sh", "-c", "sleep 600 & sleep 600")
    assert done.returncode == 124
    assert "sh still runs after 0.5 s" in done.stderr
    assert time.monotonic() - begun < 30
    assert run("--after", "1m", "--", "true").returncode == 0
    assert run("--after", "500ms", "--", "sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait").returncode == 124


TREE = """
import os, subprocess, sys, threading, time
def load():
    time.sleep(600)
if sys.argv[1:]:
    threading.Thread(target=load, name="loader", daemon=True).start()
    print("there", flush=True)
    load()
child = subprocess.Popen([sys.executable, sys.argv[0], "child"])
other = subprocess.Popen(["sleep", "600"])
child.wait()
"""


def test_a_command_whose_budget_is_over_is_reported(tmp_path):
    """State, class and Python stacks of its whole tree, as text and in the file, before the first signal."""
    program = tmp_path / "program.py"
    program.write_text(TREE)
    done = run("--after", "1.5", "--report-dir", str(tmp_path / "reports"), "--", sys.executable, str(program))
    assert done.returncode == 124
    lines = done.stderr.splitlines()
    assert len(lines) <= 21
    assert re.search(r"still runs after 1.5 s: .*program.py child \(pid \d+\), sleep, program.py:4 in load", lines[0])
    said = " ".join(done.stderr.split())  # where lines are folded depends on how long the path is
    assert "program.py:4 load: time.sleep(600)" in said
    assert re.search(r"waiting: process \d+ .* child process", said)
    (path,) = (tmp_path / "reports").iterdir()
    report = load(str(path))
    assert (report.kind, report.budget, report.complete) == ("command", 1.5, True)
    assert report.command.endswith("program.py")
    found = {worker.evidence.process.command.split()[-1]: worker for worker in report.workers}
    assert {name: str(worker.evidence.hang) for name, worker in found.items()} == {
        "child": "sleep",
        "600": "sleep",
        str(program): "child process",
    }
    assert {thread.name for thread in found["child"].evidence.threads} == {"MainThread", "loader"}
    for worker in report.workers:
        assert worker.evidence.at + worker.evidence.took < worker.steps[0].at
        assert (worker.outcome, worker.steps[0].what) == ("killed", "SIGTERM")
    # Its child gets the signal first.
    assert found[str(program)].exit in ("SIGTERM", "exit code 0")


def test_workers_of_a_command_whose_budget_is_over_have_their_blocks(tmp_path):
    """Its report says in which block each of them is, though none of these has expired."""
    code = "import time, unhang\nwith unhang.expires(600, 'epoch'): time.sleep(600)"
    done = run("--after", "1.5", "--report-dir", str(tmp_path / "reports"), "--", *python(code), UNHANG_JOB="nightly")
    assert done.returncode == 124
    (path,) = (tmp_path / "reports").iterdir()
    report = load(str(path))
    assert (report.job, report.workers[0].blocks[0].scope) == ("nightly", "epoch")
    assert "in 'epoch' for" in done.stderr
    assert " died" not in done.stderr


def test_a_report_of_a_command_is_bounded(tmp_path):
    """In time by --evidence, and in processes: of those that are left out their number is known."""
    begun = time.monotonic()
    hundred = "for i in $(seq 100); do sleep 600 & done; wait"
    done = run("--after", "2", "--evidence", "1", "--report-dir", str(tmp_path / "reports"), "--", "sh", "-c", hundred)
    assert done.returncode == 124
    assert time.monotonic() - begun < 40
    (path,) = (tmp_path / "reports").iterdir()
    report = load(str(path))
    assert len(report.workers) == 64
    assert report.omitted == ("37 more processes",)
    assert report.verdict.culprits == ()
    assert max(worker.steps[0].at for worker in report.workers) < 20


def test_a_command_that_is_only_observed_is_reported_and_goes_on(tmp_path):
    """Nobody is signalled."""
    options = ["--observe", "--after", "0.5", "--report-dir", str(tmp_path / "reports")]
    done = run(*options, "--", "sh", "-c", "sleep 4; exit 3")
    assert done.returncode == 3
    (path,) = (tmp_path / "reports").iterdir()
    report = load(str(path))
    assert {(worker.outcome, worker.steps) for worker in report.workers} == {("observed", ())}
    assert "sleep 4" in done.stderr
    assert "only observed" in done.stderr


def test_without_evidence_a_command_is_ended_at_once(tmp_path):
    """With --evidence 0 one line says so, and no report is made."""
    done = run("--after", "0.5", "--evidence", "0", "--report-dir", str(tmp_path / "reports"), "--", "sleep", "600")
    assert done.returncode == 124
    assert (
        done.stderr
        == "unhang: sleep still runs after 0.5 s: SIGTERM now, SIGKILL 5 s later, for it and all that it has started\n"
    )
    assert not (tmp_path / "reports").exists()


LEADER_ENDS = """
import ctypes, threading, time, sys
threading.Thread(target=lambda: time.sleep(600)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60, 0)  # exit() of this thread alone
"""


def test_a_process_whose_first_thread_has_ended_is_ended(tmp_path):
    """It looks like a zombie, and lives on: --after ends it, and so is one that COMMAND leaves running."""
    if os.uname().machine != "x86_64":
        capabilities.is_not_for_this("the number of a system call")
    done = run("--after", "1", "--grace", "1", "--", *python(LEADER_ENDS))
    assert done.returncode == 124
    leaves = (
        f"{shlex.join(python(LEADER_ENDS))} >{tmp_path}/out & echo $!; until [ -s {tmp_path}/out ]; do sleep 0.01; done"
    )
    done = run("--", "sh", "-c", leaves)
    assert "ending 1 process that sh left running" in done.stderr
    assert not os.path.exists(f"/proc/{int(done.stdout)}")


CHAIN = """
import os, sys, time
end = time.monotonic() + 30
if os.fork():
    time.sleep(float(sys.argv[1]))
    os._exit(0)
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.utime(sys.argv[2])
    time.sleep(0.0005)
"""


@pytest.mark.parametrize("after", ["0.5", "60"])
def test_a_chain_of_processes_is_ended(tmp_path, after):
    """Each makes the next and exits, in COMMAND's own group; it does not outlive `unhang run`."""
    note = tmp_path / "note"
    note.touch()
    done = run("--after", after, "--grace", "0.5", "--", *python(CHAIN), "60" if after == "0.5" else "0.5", str(note))
    assert done.returncode == (124 if after == "0.5" else 0)
    last = note.stat().st_mtime_ns
    give_up = time.monotonic() + 0.2
    while time.monotonic() < give_up:
        assert note.stat().st_mtime_ns == last


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (HANG, 124),
        ("import unhang, time\nwith unhang.expires(60): pass", 0),
        (f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HANG!r}])", 124),
    ],
)
def test_expiries_fail_a_command_if_that_is_asked_for(code, status):
    """With --fail-on-expiry status 124 whenever a timer has expired, also if COMMAND got over it; else its own."""
    assert run("--fail-on-expiry", "--", *python(code)).returncode == status
    assert run("--", *python(code), UNHANG_FAIL_ON_EXPIRY="1").returncode == status


def test_expiries_that_are_only_observed_fail_a_command_too():
    """Those of timers, and that of the whole command."""
    late = "import unhang, time\nwith unhang.expires(0.2): time.sleep(1.5)"
    assert run("--fail-on-expiry", "--observe", "--", *python(late)).returncode == 124
    assert run("--fail-on-expiry", "--observe", "--after", "0.2", "--", "sleep", "2").returncode == 124
    assert run("--observe", "--", *python(late)).returncode == 0


ENDS_BADLY = """
import os, signal, sys, time, unhang
def end(number, frame):
    os._exit(1)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGUSR1, signal.SIG_DFL)
with unhang.expires(600, "work"):
    print("rea" "dy", flush=True)
    time.sleep(600)
"""


def test_ctrl_c_is_no_unexpected_death(terminal, tmp_path):
    """A worker that exits with 1 because of it did so on request; one that does so by itself is reported."""
    program = tmp_path / "program.py"
    program.write_text(ENDS_BADLY)
    worker = shlex.join([sys.executable, str(program)])
    job = terminal(*UNHANG, "run", "--", "sh", "-c", f"trap '' INT; trap - INT; {worker}; echo en''ded")
    job.shows("ready")
    job.type(b"\x03")
    assert not job.sees("died", 2)
    assert (
        "died in 'work': exit code 1" in run("--", *python(ENDS_BADLY.replace("time.sleep(600)", "os._exit(1)"))).stderr
    )


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_that_was_passed_on_is_no_unexpected_death(popen, number):
    """Whatever it is, its sender wanted it."""
    job = popen([*UNHANG, "run", "--", *python(ENDS_BADLY)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "ready\n"
    job.send_signal(number)
    assert " died" not in job.communicate(timeout=30)[1]
    assert job.returncode == (1 if number == signal.SIGINT else 128 + number)


def test_what_cannot_be_written_is_an_error_before_the_command_starts(tmp_path):
    """A directory of reports, a file of durations: the option, the place, and what to do; nothing is made."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    for option, place, words in (
        ("--report-dir", "/etc/passwd/reports", "'/etc/passwd' is not a directory; name another directory"),
        ("--report-dir", str(theirs), "others may write to it"),
        ("--learn", f"{tmp_path}/missing/learned.json", f"there is no directory '{tmp_path}/missing'; make it"),
    ):
        for command in (("run", option, place, "--", "touch", str(tmp_path / "started")), ("serve", option, place)):
            done = subprocess.run([*UNHANG, *command], capture_output=True, text=True, timeout=30, check=False)
            assert done.returncode == 125
            assert option in done.stderr
            assert words in done.stderr
    assert list(tmp_path.rglob("*")) == [theirs]


def test_a_command_that_ignores_sigterm_is_killed(monkeypatch):
    """SIGTERM first, SIGKILL behind the grace."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(600)"
    done = run("--after", "1", "--grace", "0.5", "--", *python(code))
    assert (done.returncode, done.stdout) == (124, "x\n")


def test_the_last_line_says_that_a_worker_needed_sigkill():
    """The report says what will be done; this is what it came to."""
    code = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {HANG}".replace("; import", "\nimport")
    last = run("--grace", "0.2", "--", *python(code)).stderr.splitlines()[-1]
    assert "is dead, by SIGKILL, after SIGTERM did not end it: it was in 'stuck'" in last


def test_time_in_which_it_was_stopped_is_not_the_commands():
    """--after counts only time in which `unhang run` itself could run: here its command stops it for a while."""
    assert (
        run("--after", "2", "--", "sh", "-c", "kill -STOP $PPID; sleep 2.5; kill -CONT $PPID; sleep 0.5").returncode
        == 0
    )


def test_a_script_without_a_first_line_is_the_shells(tmp_path):
    """As any shell does it."""
    script = tmp_path / "script"
    script.write_text("exit 6\n")
    script.chmod(0o755)
    assert run("--", str(script)).returncode == 6


def test_a_log_that_nobody_reads_does_not_delay_kills():
    """Standard error is a full pipe: workers are killed all the same."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    done = subprocess.run([*UNHANG, "run", "--", *python(HANG)], stderr=writer, timeout=30, check=False)
    assert done.returncode == 124
    os.close(reader)
    os.close(writer)


def test_observing_kills_nobody(tmp_path):
    """--observe tells what expires, in time and in the budget, and the command has its own status."""
    # It goes on until both were told, and for a while.
    code = """
import pathlib, time, unhang
give_up = time.monotonic() + 30
with unhang.expires(0.2, "slow"):
    while pathlib.Path(LOG).read_text().count("only observed") < 2 and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(0.3)
raise SystemExit(3)
"""
    log = tmp_path / "log"
    with log.open("w") as stderr:
        command = [*UNHANG, "run", "--observe", "--after", "0.4", "--", *python(code.replace("LOG", repr(str(log))))]
        done = subprocess.run(command, stderr=stderr, timeout=30, check=False)
    assert done.returncode == 3
    assert log.read_text().count("only observed") == 2


def test_options_can_be_set_in_the_environment():
    """UNHANG_AFTER, UNHANG_OBSERVE, UNHANG_EXPECT_TIMERS."""
    assert run("--", "sleep", "600", UNHANG_AFTER="0.3").returncode == 124
    watched = run("--", "sleep", "2.5", UNHANG_AFTER="0.2", UNHANG_OBSERVE="1", UNHANG_EXPECT_TIMERS="0.2")
    assert "only observed" in watched.stderr
    assert "NOTHING IS WATCHED" in watched.stderr


def test_timers_that_were_expected_and_armed():
    """Nothing is said when somebody has armed one, though it is gone again."""
    code = "import time, unhang\nwith unhang.expires(60): pass\ntime.sleep(2.5)"
    said = run("--expect-timers", "0.5", "--", *python(code)).stderr
    # A machine that is busy makes the watchdog oversleep at any time.
    assert [line for line in said.splitlines() if "overslept" not in line] == []


@pytest.mark.parametrize("arguments", [[], ["--after", "-1", "--", "true"], ["--nonsense", "true"]])
def test_failures_of_ours_are_125(arguments):
    """A wrong call is an error of its own, and is not taken for a failure of the command."""
    done = run(*arguments)
    assert done.returncode == 125
    assert done.stderr


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("--afer", "--after"), ("--afer=3", "--after"), ("--exp", "--expect-timers"), ("-a", "--after")],
)
def test_an_option_that_does_not_exist_is_an_error(wrong, right):
    """It is not taken for the command, and the error names the option that was meant."""
    done = run(wrong, "--", "true")
    assert done.returncode == 125
    assert f"(did you mean {right}?)" in done.stderr


def test_what_the_command_leaves_behind_is_ended(tmp_path):
    """An orphan that ignores SIGTERM, and its child, are gone when `unhang run` is."""
    note = tmp_path / "note"
    leaves = "(trap '' TERM; sleep 600 & echo $! >$NOTE; sleep 601) & until [ -s $NOTE ]; do sleep 0.01; done; exit 4"
    done = run("--", "sh", "-c", leaves, NOTE=str(note))
    assert done.returncode == 4
    assert re.search(r"ending [23] processes that sh left running", done.stderr)
    assert not Path(f"/proc/{int(note.read_text())}").exists()


def test_signals_reach_the_command(popen):
    """Whatever is sent to `unhang run` is the command's to handle, and its status is what counts."""
    code = f"""
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN):
    signal.signal(number, lambda number, frame: os.write(1, b"%d\\n" % number))
signal.signal(signal.SIGUSR2, lambda number, frame: sys.exit(9))
print("ready", flush=True)
{HANDLE_SIGNALS}
"""
    with popen([*UNHANG, "run", "--", *python(code)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN):
            process.send_signal(number)
            assert process.stdout.readline() == f"{int(number)}\n"
        process.send_signal(signal.SIGUSR2)
        assert process.wait(30) == 9


def test_the_command_starts_with_a_clean_slate():
    """Nothing is blocked or ignored for it that was not before."""
    code = (
        "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGTERM)); "
        "print(open('/proc/self/status').read().split('SigIgn:')[1].split()[0])"
    )
    plain = subprocess.run(python(code), capture_output=True, text=True, timeout=30, check=False).stdout.split()
    under = run("--", *python(code)).stdout.split()
    assert under[:-1] == plain[:-1]
    # The two numbers that the C library keeps to itself are as it likes them.
    assert (int(under[-1], 16) ^ int(plain[-1], 16)) & ~0x180000000 == 0


class Terminal:
    """A real terminal with a process in it."""

    def __init__(self, *command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(command[0], command)
        self.seen = b""

    def type(self, keys):
        os.write(self.fd, keys)

    def shows(self, text):
        assert self.sees(text, 30), self.seen

    def sees(self, text, seconds):
        """Whether it shows a text within some seconds."""
        give_up = time.monotonic() + seconds
        while text.encode() not in self.seen:
            if not select.select([self.fd], [], [], max(0, give_up - time.monotonic()))[0]:
                return False
            try:
                self.seen += os.read(self.fd, 1000)
            except OSError:  # its process has ended
                return False
        self.seen = self.seen.partition(text.encode())[2]
        return True

    def is_prompted(self):
        """Press Enter until the shell answers: keys that come while it takes the terminal back may be lost."""
        until(lambda: self.type(b"\n") or self.sees("prompt: ", 1))

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal():
    opened = []

    def open_terminal(*command):
        opened.append(Terminal(*command))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


INTERACTIVE = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print('said ' + input('ask> '), flush=True)
signal.sigwait([signal.SIGINT])
print('interrupted', 'again' if signal.sigtimedwait([signal.SIGINT], 0.5) else 'once', flush=True)
"""


def test_the_terminal_is_the_commands(terminal):
    """It reads from it, and Ctrl-C reaches it once."""
    shell = terminal(*UNHANG, "run", "--", *python(INTERACTIVE))
    shell.shows("ask> ")
    shell.type(b"hello\n")
    shell.shows("said hello")
    shell.type(b"\x03")
    shell.shows("interrupted once")


def test_a_terminal_that_is_closed_ends_the_command(tmp_path):
    """The kernel tells `unhang run` alone, which passes it on."""
    note = tmp_path / "note"
    code = f"""
import pathlib, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print("ready")  # in two writes: the second one is waited for too
signal.sigwait([signal.SIGHUP])
pathlib.Path({str(note)!r}).touch()
"""
    shell = Terminal(*UNHANG, "run", "--", sys.executable, "-u", "-c", code)
    shell.shows("ready\r\n")
    os.close(shell.fd)
    until(note.exists)
    os.waitpid(shell.pid, 0)


def test_job_control_works(terminal):
    """Ctrl-Z gives the prompt back with both stopped; fg goes on with both."""
    shell = terminal("bash", "--norc", "--noprofile", "-i")
    shell.type(b"PS1='pro''mpt: '\n")
    shell.shows("prompt: ")
    shell.type(f"{shlex.join([*UNHANG, 'run'])} -- sh -c 'echo start''ed; exec cat'\n".encode())
    shell.shows("started")
    shell.type(b"one\n")
    shell.shows("one\r\none\r\n")
    shell.type(b"\x1a")
    shell.shows("Stopped")
    shell.shows("prompt: ")
    shell.is_prompted()
    shell.type(b"fg\n")
    shell.shows("exec cat")
    shell.type(b"two\n")
    shell.shows("two\r\n")
    shell.shows("two\r\n")
    shell.type(b"\x04")
    shell.shows("prompt: ")
    shell.type(b"echo status $?\n")
    shell.shows("status 0")


@pytest.fixture
def bash(terminal):
    """An interactive shell with job control; its prompt is there."""
    shell = terminal("bash", "--norc", "--noprofile", "-i")
    shell.type(b"PS1='pro''mpt: '\n")
    shell.shows("prompt: ")
    return shell


def typed(tmp_path, code, *options, ending=""):
    """What a user types to run a Python program."""
    program = tmp_path / "program.py"
    program.write_text(code)
    return (shlex.join([*UNHANG, "run", *options, "--", sys.executable, str(program)]) + f"{ending}\n").encode()


USES_TERMINAL = """
import sys, termios, unhang
terminal = open("/dev/tty")
settings = termios.tcgetattr(terminal)
with unhang.expires(float(sys.argv[1]) if sys.argv[1:] else 600, "restore"):
    termios.tcsetattr(terminal, termios.TCSADRAIN, settings)
print("res" "tored")
"""


def test_a_hang_in_the_background_is_ended(bash, tmp_path):
    """The terminal stops the job for using it; the watchdog goes on, says so, and kills it at its deadline."""
    bash.type(typed(tmp_path, USES_TERMINAL.replace("600", "1"), "--grace", "0.2", ending=" &"))
    bash.shows("was stopped for that by SIGTTOU")
    bash.shows("hangs in 'restore'")
    bash.shows("stopped")
    bash.is_prompted()
    bash.type(b"wait $!; echo sta''tus $?\n")
    bash.shows("status 124")


@pytest.mark.parametrize("code", [USES_TERMINAL, "print('res' + input('ask> '))"])
def test_a_job_that_was_stopped_in_the_background_goes_on_in_the_foreground(bash, tmp_path, code):
    """`fg` continues it, though the shell has not seen it stop; then it has the terminal."""
    bash.type(typed(tmp_path, code, ending=" &"))
    bash.shows("was stopped for that by SIGTT")
    bash.is_prompted()
    bash.type(b"fg\n")
    bash.shows("program.py")
    if "ask" in code:
        bash.type(b"tored\n")
    bash.shows("restored")
    bash.shows("prompt: ")
    bash.type(b"echo status $?\n")
    bash.shows("status 0")


def test_ctrl_z_does_not_stop_the_watchdog_of_a_command_that_goes_on(bash, tmp_path):
    """One that ignores it hangs in the foreground as before, and is killed on time."""
    code = """
import signal, time, unhang
signal.signal(signal.SIGTSTP, signal.SIG_IGN)
print("rea" "dy", flush=True)
with unhang.expires(1, "stuck"): time.sleep(600)
"""
    bash.type(typed(tmp_path, code))
    bash.shows("ready")
    bash.type(b"\x1a")
    bash.shows("hangs in 'stuck'")
    bash.is_prompted()


def test_a_job_goes_on_in_the_background(bash, tmp_path):
    """Ctrl-Z stops both, `bg` continues both: a hang there is ended. The time in between is not the block's."""
    code = """
import time, unhang
with unhang.expires(1.5, "stuck"):
    print("rea" "dy", flush=True)
    time.sleep(600)
"""
    bash.type(typed(tmp_path, code))
    bash.shows("ready")
    bash.type(b"\x1a")
    bash.shows("Stopped")
    assert not bash.sees("hangs", 3)
    bash.type(b"bg\n")
    bash.shows("hangs in 'stuck'")


@pytest.fixture
def serve(popen, tmp_path):
    """Start `unhang serve` at an address of the test's."""
    tmp_path.chmod(0o700)

    def start(*options):
        address = str(tmp_path / "serve.sock")
        process = popen(
            [*UNHANG, "serve", "--address", address, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == f"UNHANG_ADDRESS={address}\n"
        return process, address

    return start


def test_serve_watches_at_an_address(serve):
    """Workers that have it in their environment are killed when they hang; SIGTERM ends it cleanly."""
    process, address = serve()
    worker = subprocess.run(python(HANG), env={**os.environ, "UNHANG_ADDRESS": address}, check=False, timeout=30)
    assert worker.returncode == -signal.SIGTERM
    process.terminate()
    assert process.wait(30) == 0
    assert "hangs in 'stuck'" in process.stderr.read()
    assert not os.path.exists(address)


def test_serve_says_why_it_cannot(serve, tmp_path):
    """An address that is taken or unsafe, a user that is none: status 125 and one line."""
    _, address = serve()
    for arguments, words in (
        (["--address", address], "listens there already"),
        (["--address", "/tmp/unhang.sock"], "anybody may write"),
        (["--address", str(tmp_path / "x"), "--user", "nobody-at-all"], "no user"),
        (["--user", "daemon"], "--user needs an --address"),
    ):
        done = subprocess.run([*UNHANG, "serve", *arguments], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 125
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_watchdog_that_is_killed_leaves_the_command_alone():
    """Without its watchdog the command goes on, says so once, and ends as it likes."""
    code = """
import os, signal, time, unhang
with unhang.expires(60):
    os.kill(os.getppid(), signal.SIGKILL)
give_up = time.monotonic() + 1.5
while time.monotonic() < give_up:
    with unhang.expires(0.5):
        time.sleep(0.001)
open(os.environ["DONE"], "w").close()
"""
    done_file = Path(f"/tmp/unhang-test-{os.getpid()}")
    done = run("--", *python(code), DONE=str(done_file))
    assert done.returncode == -signal.SIGKILL
    until(done_file.exists)
    done_file.unlink()


def test_what_the_watchdog_starts_is_not_taken_for_a_child_of_the_command(tmp_path):
    """Its tools are waited for by whoever started them: so it is told rightly why stacks are missing."""
    fake = tmp_path / "py-spy"
    fake.write_text("#!/bin/sh\necho 'Permission Denied: try running as root' >&2\nexit 1\n")
    fake.chmod(0o755)
    code = f"""
import sys
sys.argv = ["unhang", "run", "--report-dir", {str(tmp_path / "reports")!r}, "--", *{[*python(HANG)]!r}]
from unhang._platform import pyspy
pyspy.executable = lambda: {str(fake)!r}
from unhang.cli.main import main
main()
"""
    done = subprocess.run(python(code), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 124, done.stderr
    (report,) = (tmp_path / "reports").iterdir()
    evidence = load(str(report)).workers[0].evidence
    assert evidence.stacks_from == "faulthandler"
    assert any("may not look into it" in reason for reason in evidence.without)


def test_reports_have_the_end_of_standard_error(tmp_path):
    """With --tail-stderr it still comes out; a report of a worker that writes there has it."""
    code = "import sys, time, unhang\nprint('about to hang', file=sys.stderr, flush=True)\n" + HANG
    done = run("--tail-stderr", "--report-dir", str(tmp_path / "reports"), "--", *python(code))
    assert done.returncode == 124
    assert "about to hang" in done.stderr
    (report,) = (tmp_path / "reports").iterdir()
    assert "about to hang" in load(str(report)).workers[0].evidence.stderr


def test_options_that_make_no_sense_are_refused_at_once():
    """A signal that ends nobody, and times that are none: status 125, and what would be right."""
    for options in (
        ("--signal", "SIGWINCH"),
        ("--signal", "nonsense"),
        ("--grace", "-1"),
        ("--grace", "nan"),
        ("--after", "nan"),
        ("--kill", "all"),
    ):
        done = run(*options, "--", "true")
        assert done.returncode == 125
        assert options[0] in done.stderr
    assert run("--", "true", UNHANG_SIGNAL="SIGSTOP").returncode == 125
    assert run("--signal", "none", "--", "true").returncode == 0


def test_a_tree_is_ended_and_the_rest_of_the_command_is_not(tmp_path):
    """With --kill tree the children of the hung worker are gone, and its sibling writes on."""
    note = tmp_path / "note"
    worker = f"""
import subprocess, time, unhang
child = subprocess.Popen(["sleep", "600"])
open({str(note)!r}, "w").write(str(child.pid))
with unhang.expires(0.3, "stuck"):
    time.sleep(600)
"""
    code = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-c", {worker!r}])
stat = f"/proc/{{open({str(note)!r}).read()}}/stat"
give_up = time.monotonic() + 20
try:
    while open(stat).read().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < give_up
        time.sleep(0.01)
except FileNotFoundError:
    pass
"""
    assert run("--kill", "tree", "--", *python(code)).returncode == 0
