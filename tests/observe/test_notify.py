"""The notify protocol of service managers, against real sockets."""

import json
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unhang
from support import LONG, until
from unhang.observe import notify
from unhang.observe.notify import Notifier
from unhang.report.live import Event
from workers import sleep_in_block, step_by_step

UNHANG = [sys.executable, "-m", "unhang"]


class Manager:
    """What systemd is to a service: the socket, and who has sent what."""

    def __init__(self, address):
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(LONG)
        self.sender = 0

    def heard(self):
        """The next message, as a dictionary."""
        message, rights, _, _ = self.socket.recvmsg(10_000, 100)
        self.sender = int.from_bytes(rights[0][2][:4], sys.byteorder)
        return dict(line.split("=", 1) for line in message.decode().split("\n"))

    def hears(self, name):
        """The value of the next message with this name; the others are skipped."""
        while True:
            message = self.heard()
            if name in message:
                return message[name]

    def waiting(self):
        """Everything that has come until now."""
        self.socket.setblocking(False)
        messages = []
        try:
            while True:
                messages.append(self.heard())
        except BlockingIOError:
            return messages
        finally:
            self.socket.settimeout(LONG)


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """Listens at a path, or at an abstract address."""
    tmp_path.chmod(0o700)
    manager = Manager(f"@unhang-{secrets.token_hex(8)}" if request.param == "abstract" else str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


@pytest.fixture
def path_manager(tmp_path):
    tmp_path.chmod(0o700)
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


@pytest.fixture
def unhang_command(popen):
    """Start the command with a service manager's variables; it is killed at the end."""

    def start_command(*arguments, **environment):
        return popen(
            [*UNHANG, *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start_command


def test_serve_tells_its_manager(manager, unhang_command, tmp_path):
    """READY when it listens, signs of life, STOPPING when it is asked to end: all from its main process."""
    process = unhang_command(
        "serve", "--address", str(tmp_path / "serve.sock"), NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="300000"
    )
    assert manager.hears("READY") == "1"
    assert manager.sender == process.pid
    assert os.path.exists(tmp_path / "serve.sock")
    assert manager.hears("WATCHDOG") == "1"
    assert manager.hears("WATCHDOG") == "1"
    process.terminate()
    assert manager.hears("STOPPING") == "1"
    assert process.wait(LONG) == 0


def test_no_sign_of_life_without_the_loop(path_manager):
    """Signs come from the loop: one that does not turn gives none, though the process lives."""
    notifier = Notifier(path_manager.address, timeout=0.03)
    server = unhang.SharedTimerServer(**notifier.server_arguments({}))
    server.start()
    try:
        assert path_manager.hears("WATCHDOG") == "1"
        server._on_turn = lambda server: (notifier.turned(server), time.sleep(1))
        until(lambda: not any("WATCHDOG" in message for message in _quiet(path_manager, 0.5)))
    finally:
        server.stop()
        notifier.close()


def _quiet(manager, seconds):
    """What comes within some seconds, but for what waits already."""
    manager.waiting()
    time.sleep(seconds)
    return manager.waiting()


def test_a_stopped_watchdog_gives_no_sign_of_life(path_manager, unhang_command, tmp_path):
    """Its manager will find out."""
    process = unhang_command(
        "serve", "--address", str(tmp_path / "serve.sock"), NOTIFY_SOCKET=path_manager.address, WATCHDOG_USEC="100000"
    )
    assert path_manager.hears("WATCHDOG") == "1"
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert not any("WATCHDOG" in message for message in _quiet(path_manager, 0.5))
    process.send_signal(signal.SIGCONT)
    assert path_manager.hears("WATCHDOG") == "1"


def test_signs_of_life_are_given_to_who_asked_for_them(path_manager, unhang_command):
    """WATCHDOG_PID names another process: none. Without WATCHDOG_USEC: none."""
    for extra in ({"WATCHDOG_USEC": "3000", "WATCHDOG_PID": "1"}, {}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}):
        process = unhang_command("run", "--", "sleep", "0.2", NOTIFY_SOCKET=path_manager.address, **extra)
        assert process.wait(LONG) == 0
        messages = path_manager.waiting()
        assert {"READY": "1"} in messages
        assert {"STOPPING": "1", "STATUS": "stopping"} in messages
        assert not any("WATCHDOG" in message for message in messages)


def test_run_is_ready_when_its_command_runs(path_manager, unhang_command):
    """One that cannot be started was never ready."""
    assert unhang_command("run", "--", "no-such-command", NOTIFY_SOCKET=path_manager.address).wait(LONG) == 127
    assert not any("READY" in message for message in path_manager.waiting())
    process = unhang_command("run", "--", "cat", NOTIFY_SOCKET=path_manager.address)
    assert path_manager.hears("READY") == "1"
    process.stdin.close()
    assert path_manager.hears("STOPPING") == "1"


SHOW = """
import json, os
print(json.dumps([os.environ.get(name) for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")]))
"""


def test_the_command_is_not_told_of_the_manager(path_manager, unhang_command):
    """What it would say there would be said for a process that is not the service's; unless it is to speak itself."""
    environment = {"NOTIFY_SOCKET": path_manager.address, "WATCHDOG_USEC": "9000000"}
    command = ("--", sys.executable, "-c", SHOW)
    process = unhang_command("run", *command, **environment, WATCHDOG_PID="1")
    assert json.loads(process.stdout.read()) == [None, None, None]
    process.wait(LONG)
    path_manager.waiting()
    process = unhang_command("run", "--notify", "command", *command, **environment, WATCHDOG_PID="1")
    assert json.loads(process.stdout.read()) == [path_manager.address, "9000000", None]
    process.wait(LONG)
    assert path_manager.waiting() == []


def test_the_state_is_one_line(path_manager, start, monkeypatch):
    """How many workers, how many of them in a block, and what happened last."""
    monkeypatch.setattr(notify, "_STATUS_PAUSE", 0.01)
    notifier = Notifier(path_manager.address)
    server = unhang.SharedTimerServer(**notifier.server_arguments({}))
    server.start()
    try:
        worker = start(step_by_step, unhang.SharedTimerClient(server.address))
        assert worker.heard() == "ready"
        worker.told("enter", 60, "step")
        until(lambda: path_manager.hears("STATUS") == "1 worker, 1 in a block")
        worker.told("leave")
        until(lambda: path_manager.hears("STATUS") == "1 worker, 0 in a block")
        hung = start(sleep_in_block, unhang.SharedTimerClient(server.address), 0.1)
        hung.ended()
        until(lambda: f"last: worker {hung.pid} hangs in" in path_manager.hears("STATUS"))
    finally:
        server.stop()
        notifier.close()


class Nobody:
    workers = in_blocks = 0


@given(st.text(), st.text())
def test_what_a_worker_says_of_itself_is_no_message(text, scope):
    """Line breaks and the like in a scope or a headline do not become lines of the protocol."""
    address = f"@unhang-{secrets.token_hex(8)}"
    manager = Manager(address)
    notifier = Notifier(address)
    for event in (
        Event(time="t", event="report", at=0.0, detail=text),
        Event(time="t", event="died", at=0, scope=scope),
    ):
        notifier(event)
        notifier._status_at = 0.0
        notifier.turned(Nobody())
        assert list(manager.heard()) == ["STATUS"]
    manager.socket.close()
    notifier.close()


def test_nobody_listens(tmp_path):
    """Nothing is raised and nothing waited for; it is told that it is ready as soon as somebody listens."""
    notifier = Notifier(str(tmp_path / "notify"), timeout=1.0)
    notifier.ready()
    notifier.turned(Nobody())
    manager = Manager(str(tmp_path / "notify"))
    notifier.turned(Nobody())
    assert manager.heard() == {"READY": "1"}
    assert manager.heard() == {"WATCHDOG": "1"}
    manager.socket.close()
    notifier.turned(Nobody())
    notifier.stopping()
    notifier.close()
    notifier.close()


def test_a_manager_that_does_not_read(path_manager):
    """A full socket is not waited for."""
    notifier = Notifier(path_manager.address, timeout=0.0)
    for _ in range(10_000):
        notifier.turned(Nobody())
    assert len(path_manager.waiting()) < 10_000
    notifier.close()


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234"])
def test_what_is_no_path_is_left_alone(address, caplog):
    """Nobody is told, and that is said."""
    assert notify.from_environment({"NOTIFY_SOCKET": address}) is None
    assert len(caplog.records) == (address != "")


@pytest.mark.parametrize(
    ("environment", "timeout"),
    [
        ({"WATCHDOG_USEC": "6000000"}, 6.0),
        ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": str(os.getpid())}, 6.0),
        ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"}, math.inf),
        ({"WATCHDOG_USEC": "-1"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_time_for_signs_of_life(environment, timeout):
    """As sd_watchdog_enabled(3) has it; the loop then turns at least three times in it."""
    notifier = notify.from_environment({"NOTIFY_SOCKET": "@unhang-nobody", **environment})
    assert notifier.server_arguments({})["max_interval"] == min(10.0, timeout / 3)
    notifier.close()


def test_who_is_not_the_main_process_says_so(path_manager):
    """Started by a script of the service's, it is the one to watch; if its pid means the same to the manager."""
    for started, expected in ((os.getppid(), str(os.getpid())), (os.getpid(), None), (2**22, None)):
        notifier = notify.from_environment({"NOTIFY_SOCKET": path_manager.address, "SYSTEMD_EXEC_PID": str(started)})
        notifier.ready()
        assert path_manager.heard().get("MAINPID") == expected
        notifier.close()
