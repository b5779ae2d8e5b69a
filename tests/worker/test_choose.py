"""Which watchdog a program gets: the one that is given, the one in the environment, or one of its own."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import capabilities
import unhang
from support import until
from unhang._platform.address import check_address
from unhang._worker import choose
from unhang.errors import AddressError, NoTimerClientError, NotSupportedError


def run(code, **environment):
    """Run a program; returns it when it has ended, with what it has said."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


def test_nothing_configured_names_the_three_ways_out():
    """The error of the contract says what to do: unhang run, configure(), configure(client)."""
    with pytest.raises(RuntimeError, match=r"unhang run -- .*unhang\.configure\(\).*configure\(client\)") as caught:
        unhang.expires(60).__enter__()
    assert isinstance(caught.value, NoTimerClientError)


def test_the_environment_names_a_watchdog(monkeypatch):
    """UNHANG_ADDRESS comes first, and is looked up when nothing was configured."""
    monkeypatch.setenv("TORCHELASTIC_TIMER_FILE", "/run/pipe")
    monkeypatch.setenv("UNHANG_ADDRESS", "/run/socket")
    assert isinstance(unhang.expires(60), unhang.Timer)
    assert choose.current_client().address == "/run/socket"


def test_the_environment_names_torchruns_pipe(file_server, pipe_path):
    """Under torchrun with its file timer, expires() speaks to the agent; observing, it asks for no signal."""
    file_server.start()
    code = """
        import time, unhang
        unhang.configure(observe={})
        with unhang.expires(0.2):
            time.sleep(1 if {} else 600)
    """
    for observe, status in (("True", 0), ("False", -signal.SIGKILL)):
        done = run(code.replace("{}", observe), TORCHELASTIC_TIMER_FILE=pipe_path)
        assert done.returncode == status, done.stderr


def test_a_program_gets_a_watchdog_of_its_own():
    """configure() starts one that kills this process when it hangs in C with the GIL held, and then ends."""
    done = run("""
        import ctypes, os, unhang
        unhang.configure()
        print(os.environ["UNHANG_ADDRESS"], flush=True)
        with unhang.expires(0.3, "stuck"):
            ctypes.PyDLL(None).sleep(600)
    """)
    assert done.returncode == -signal.SIGTERM
    assert "hangs in 'stuck'" in done.stderr
    until(lambda: not Path(done.stdout.strip()).exists())


def test_the_watchdog_of_a_program_serves_its_children():
    """Forked and spawned children are workers of the same watchdog, without configuring anything."""
    done = run("""
        import multiprocessing, os, signal, sys, time, unhang
        unhang.configure()
        if os.fork() == 0:
            with unhang.expires(0.2):
                time.sleep(600)
        _, status = os.wait()
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
        import subprocess
        code = "import time, unhang\\nwith unhang.expires(0.2): time.sleep(600)"
        assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGTERM
        print("fine")
    """)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_the_watchdog_of_a_program_serves_each_start_method(tmp_path, method):
    """A process of multiprocessing that hangs in its block is killed, however it was started."""
    script = tmp_path / "program.py"
    script.write_text(f"""
import multiprocessing, time, unhang

def work():
    with unhang.expires(0.2, signal="none"):
        time.sleep(600)

if __name__ == "__main__":
    unhang.configure()
    process = multiprocessing.get_context({method!r}).Process(target=work)
    process.start()
    process.join()
    print(process.exitcode)
""")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == f"{-signal.SIGKILL}\n", done.stderr


def test_the_watchdog_of_a_program_outlives_it_for_its_children():
    """A child that is armed when the program ends is still killed; then the watchdog ends."""
    done = run("""
        import os, time, unhang
        unhang.configure()
        reader, writer = os.pipe()
        if os.fork() == 0:
            with unhang.expires(1):
                os.write(writer, b"armed")
                time.sleep(600)
        os.read(reader, 5)
        print(os.environ["UNHANG_ADDRESS"])
    """)
    # Its standard error was the child's and the watchdog's as well, so both have ended by now.
    assert done.returncode == 0
    assert "hangs in" in done.stderr
    assert not Path(done.stdout.strip()).exists()


def test_configuring_again_lets_go_of_the_old_watchdog():
    """configure(None) and configure() end the one before, and nothing is left in the environment."""
    done = run("""
        import os, pathlib, time, unhang
        unhang.configure()
        first = os.environ["UNHANG_ADDRESS"]
        unhang.configure()
        assert os.environ["UNHANG_ADDRESS"] != first
        second = os.environ["UNHANG_ADDRESS"]
        unhang.configure(None)
        assert "UNHANG_ADDRESS" not in os.environ
        give_up = time.monotonic() + 30
        while pathlib.Path(first).exists() or pathlib.Path(second).exists():
            assert time.monotonic() < give_up
            time.sleep(0.01)
        try:
            unhang.expires(1).__enter__()
        except RuntimeError:
            print("cleared")
    """)
    assert (done.returncode, done.stdout) == (0, "cleared\n"), done.stderr


def test_a_watchdog_that_was_killed_is_started_again():
    """The program that has started it does so, at the same address, when it arms the next timer."""
    done = run("""
        import os, signal, subprocess, time, unhang
        unhang.configure()
        address = os.environ["UNHANG_ADDRESS"]
        listing = subprocess.run(["pgrep", "-f", address], capture_output=True, text=True, timeout=30).stdout.split()
        watchdog = [int(pid) for pid in listing if int(pid) != os.getpid()]
        with unhang.expires(3, "outer"):
            os.kill(watchdog[0], signal.SIGKILL)
            while True:
                with unhang.expires(30):
                    time.sleep(0.001)
    """)
    assert done.returncode == -signal.SIGTERM
    assert "hangs in 'outer'" in done.stderr


def test_a_watchdog_that_cannot_be_started_again_breaks_nothing():
    """The program says so, and its blocks go on."""
    done = run("""
        import os, pathlib, signal, subprocess, sys, time, unhang
        unhang.configure()
        address = os.environ["UNHANG_ADDRESS"]
        sys.executable = "/nowhere/python"
        listing = subprocess.run(["pgrep", "-f", address], capture_output=True, text=True, timeout=30).stdout.split()
        with unhang.expires(60):
            os.kill(next(int(pid) for pid in listing if int(pid) != os.getpid()), signal.SIGKILL)
            give_up = time.monotonic() + 3
            while time.monotonic() < give_up:
                with unhang.expires(0.5):
                    time.sleep(0.001)
        print("alive")
    """)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
    assert "it cannot be started" in done.stderr


def test_a_daemon_has_a_watchdog_when_its_parent_is_gone():
    """configure(), fork, the parent exits and its watchdog with it: the child's first block starts one anew."""
    done = run("""
        import os, pathlib, time, unhang
        unhang.configure()
        address = pathlib.Path(os.environ["UNHANG_ADDRESS"])
        if os.fork():
            os._exit(0)
        while address.exists():
            time.sleep(0.01)
        with unhang.expires(0.3, "daemon"):
            time.sleep(600)
    """)
    assert "hangs in 'daemon'" in done.stderr


def test_a_program_that_is_stopped_is_not_killed_for_it():
    """Ctrl-Z does not stop the watchdog of a program's own; it spares the program, and starts its time over."""
    done = run("""
        import os, signal, subprocess, sys, time, unhang
        unhang.configure()
        code = "import os, signal, time; time.sleep(1.5); os.kill(int(os.sys.argv[1]), signal.SIGCONT)"
        subprocess.Popen([sys.executable, "-c", code, str(os.getpid())])
        with unhang.expires(0.5):
            os.kill(os.getpid(), signal.SIGSTOP)
        print("alive")
    """)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
    assert "spared" in done.stderr


def test_a_frozen_program_is_told_at_once(monkeypatch):
    """Its executable is no Python: starting that would start the program again, and again."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(NotSupportedError, match="unhang serve"):
        unhang.configure()


def test_an_observed_program_lives():
    """configure(observe=True) and UNHANG_OBSERVE=1 tell what expires, and nothing more."""
    # It goes on until it is told, on the standard error that it shares with its watchdog, and for a while.
    code = """
        import os, time, unhang
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        unhang.configure({})
        with unhang.expires(0.1, "slow"):
            told = b""
            while b"only observed" not in told:
                told += os.read(reader, 1000)
            time.sleep(0.3)
        print("alive")
    """
    for argument, environment in (("observe=True", {}), ("", {"UNHANG_OBSERVE": "1"})):
        done = run(code.replace("{}", argument), **environment)
        assert (done.returncode, done.stdout) == (0, "alive\n")


def test_an_unkillable_process_is_told_at_once(monkeypatch):
    """Process 1 of a container cannot be killed from inside: configure() says what to do instead."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(NotSupportedError, match="unhang run -- COMMAND"):
        unhang.configure()


def test_a_process_that_would_be_the_watchdogs_parent_is_told_at_once():
    """A subreaper gets the watchdog as a child, which may not kill it: configure() says so."""
    done = run("""
        import ctypes, unhang
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
        unhang.configure()
    """)
    assert "NotSupportedError" in done.stderr
    assert "is an ancestor of the watchdog" in done.stderr


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("@unhang", "abstract"),
        ("\0unhang", "abstract"),
        ("", "abstract or empty"),
        ("watchdog.sock", "absolute"),
        ("/tmp/watchdog.sock", "anybody may write"),
        ("/nowhere/watchdog.sock", "No such file"),
        ("/run/" + "x" * 200, "107 bytes"),
    ],
)
def test_an_unsafe_address_is_refused(address, reason):
    """Abstract, relative, in a directory that anybody may write to, too long: by client and server alike."""
    with pytest.raises(AddressError, match=reason):
        check_address(address)


def test_a_directory_that_a_group_may_write_to_is_refused(tmp_path, caplog):
    """A client does not connect there, and says so."""
    tmp_path.chmod(0o770)
    if tmp_path.stat().st_uid == 0:
        os.chown(tmp_path, capabilities.other_user(), -1)
    with unhang.expires(60, client=unhang.SharedTimerClient(str(tmp_path / "watchdog.sock"))):
        pass
    assert "group may write" in caplog.text or "another user" in caplog.text


def test_an_address_that_is_taken_is_refused(shared_server):
    """A second watchdog at the same place is an error that says so; the first goes on."""
    other = unhang.SharedTimerServer(shared_server.address)
    with pytest.raises(AddressError, match="listens there already"):
        other.start()


def test_a_file_at_the_address_is_left_alone(tmp_path):
    """Whatever is there that is no socket of a watchdog that is gone."""
    tmp_path.chmod(0o700)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(AddressError, match="left alone"):
        unhang.SharedTimerServer(str(tmp_path / "file")).start()
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(("said", "observes"), [("", False), ("no", False), ("f", False), ("t", True), ("Yes", True)])
def test_the_environment_says_whether_to_observe(monkeypatch, said, observes):
    """As the command line reads it."""
    monkeypatch.setenv("UNHANG_OBSERVE", said)
    assert choose._observes() is observes


def test_nonsense_in_the_environment_kills_nobody(monkeypatch, caplog):
    """What can only be guessed is taken for the harmless way, and said."""
    monkeypatch.setenv("UNHANG_OBSERVE", "maybe")
    assert choose._observes()
    assert "maybe" in caplog.text


@pytest.mark.parametrize("plain", ["", "1"])
def test_threads_that_enter_their_first_blocks_together_have_one_client(plain):
    """What the environment names is one watchdog, and this process one worker of it."""
    code = """
        import sys, threading
        import unhang
        from unhang._worker import choose

        sys.setswitchinterval(1e-6)
        for _ in range(20):
            unhang.configure(None)
            barrier, clients = threading.Barrier(32), set()

            def enter():
                barrier.wait()
                clients.add(id(choose.current_client()))

            threads = [threading.Thread(target=enter) for _ in range(32)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(clients) == 1, len(clients)
    """
    done = run(code, UNHANG_ADDRESS="/nowhere/watchdog.sock", UNHANG_PURE=plain)
    assert done.returncode == 0, done.stderr


AGAIN = """
    import os, subprocess, sys, time
    import unhang

    unhang.configure()
    if len(sys.argv) == 1:
        left_behind = os.environ["UNHANG_ADDRESS"]
        unhang.configure(None)  # its watchdog ends
        while os.path.exists(left_behind):
            time.sleep(0.01)
        os.environ["UNHANG_ADDRESS"] = left_behind
        os.execv(sys.executable, [sys.executable, "-c", sys.orig_argv[2], "again"])
    print(os.environ["UNHANG_ADDRESS"])
    with unhang.expires(0.2):
        time.sleep(20)
"""


def test_a_program_whose_watchdog_has_ended_with_the_one_before_it_has_another():
    """A re-exec, or a child that outlives its launcher, inherits an address where nobody will listen again."""
    done = run(AGAIN)
    assert done.returncode == -signal.SIGTERM, done.stderr


@pytest.mark.parametrize("name", ["of-1-0123abcd.sock", "watchdog-1-0123abcd.sock"])
def test_an_address_that_was_made_for_one_run_is_forgotten_when_nobody_listens(name, tmp_path, monkeypatch):
    """Whoever has listened there has gone, and is not started there again."""
    tmp_path.chmod(0o700)
    for path in (str(tmp_path / name), f"/nowhere/{name}"):
        monkeypatch.setenv("UNHANG_ADDRESS", path)
        choose._forget_stale_address()
        assert "UNHANG_ADDRESS" not in os.environ


def test_an_address_that_somebody_chose_or_listens_at_is_kept(tmp_path, monkeypatch):
    """A watchdog of `unhang serve` may still come; one that is there is used."""
    monkeypatch.setenv("UNHANG_ADDRESS", str(tmp_path / "serve.sock"))
    choose._forget_stale_address()
    assert os.environ["UNHANG_ADDRESS"] == str(tmp_path / "serve.sock")
    tmp_path.chmod(0o700)
    server = unhang.SharedTimerServer(str(tmp_path / "of-1-0123abcd.sock"))
    server.start()
    try:
        monkeypatch.setenv("UNHANG_ADDRESS", server.address)
        choose._forget_stale_address()
        assert os.environ["UNHANG_ADDRESS"] == server.address
    finally:
        server.stop()


GREEN = """
    import socket, time

    class Green(socket.socket):
        # As eventlet's are: the descriptor does not block, and some calls do not wait for it.
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            super().setblocking(False)

        def settimeout(self, seconds): ...

        def setblocking(self, yes): ...

    socket.socket = Green
    import unhang

    unhang.configure()
    with unhang.expires(0.2):
        time.sleep(20)
"""


def test_a_program_with_green_sockets_is_watched():
    """It speaks to the watchdog with one of the system's own."""
    done = run(GREEN)
    assert done.returncode == -signal.SIGTERM, done.stderr
