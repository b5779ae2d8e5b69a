"""``unhang run`` as process 1 of a pid namespace, as in a container."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

import capabilities
from support import HANDLE_SIGNALS, LONG, until

UNHANG = [sys.executable, "-m", "unhang"]
HANG = "import time, unhang\nwith unhang.expires(0.3, 'stuck'): time.sleep(600)"


@pytest.fixture
def container(popen):
    """Start a command as process 1; everything in its namespace is killed at the end."""
    command = capabilities.unshare(*capabilities.CONTAINER)

    def start(*arguments, **options):
        return popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return start


def one(process):
    """The pid, out here, of process 1 in there: the only child of unshare."""
    children = f"/proc/{process.pid}/task/{process.pid}/children"

    def found():
        with open(children) as file:
            return file.read().split()

    until(found)
    return int(found()[0])


def python(code):
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 128 + 9)])
def test_it_ends_with_its_command(container, script, status):
    """And with the command's status."""
    process = container(*UNHANG, "run", "--", "sh", "-c", script)
    assert process.wait(LONG) == status


def test_it_really_is_process_1(container):
    """Its command says so."""
    process = container(*UNHANG, "run", "--", "sh", "-c", "echo $PPID")
    assert process.stdout.read() == "1\n"


def test_orphans_are_reaped_while_the_command_runs(container):
    """However many end at the same moment: a second later there is no zombie."""
    code = """
import os, sys, time
reader, writer = os.pipe()
for _ in range(200):
    if os.fork() == 0:
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)  # until the parent closes the pipe
        os._exit(0)
    os.wait()
os.close(writer)
def states():
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal():
                yield open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[0]
        except OSError:
            pass
give_up = time.monotonic() + 20
while time.monotonic() < give_up and len(list(states())) > 2:
    time.sleep(0.05)
print(len(list(states())), flush=True)
"""
    process = container(*UNHANG, "run", "--", *python(code))
    assert process.stdout.read() == "2\n"
    assert process.wait(LONG) == 0


def test_what_is_left_is_ended(container):
    """Daemons, those that ignore SIGTERM, in sessions of their own."""
    script = "setsid sh -c 'trap \"\" TERM; sleep 600' & sleep 601 & sleep 0.3; exit 4"
    process = container(*UNHANG, "run", "--", "sh", "-c", script)
    assert process.wait(LONG) == 4
    assert re.search(r"ending [2-5] processes that sh left running", process.stderr.read())


def test_it_can_be_stopped_from_outside(container):
    """SIGTERM, as container runtimes send it, is the command's; it is not ignored as process 1 ignores signals."""
    process = container(*UNHANG, "run", "--", "sh", "-c", "echo ready; exec sleep 600")
    assert process.stdout.readline() == "ready\n"
    os.kill(one(process), signal.SIGTERM)
    assert process.wait(LONG) == 128 + signal.SIGTERM


def test_a_signal_that_comes_early_is_kept(container):
    """SIGTERM before the command has begun ends it as soon as it has."""
    # As soon as Python's own start is over.
    code = """
import os, signal, sys
from unhang.cli.main import main
import unhang.cli.main
real = unhang.cli.main.unhang_command
def late(*args, **options):
    os.kill(1, signal.SIGTERM)
    return real(*args, **options)
unhang.cli.main.unhang_command = late
sys.argv = ["unhang", "run", "--", "sleep", "600"]
main()
"""
    process = container(*python(code))
    assert process.wait(LONG) == 128 + signal.SIGTERM


def test_signals_from_inside_and_outside_reach_the_command(container):
    """All of them, and nothing is left blocked for it."""
    code = f"""
import os, signal, sys
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN):
    signal.signal(number, lambda number, frame: os.write(1, b"%d\\n" % number))
os.kill(1, signal.SIGUSR1)
{HANDLE_SIGNALS}
"""
    process = container(*UNHANG, "run", "--", *python(code))
    assert process.stdout.readline() == "set()\n"
    assert process.stdout.readline() == f"{int(signal.SIGUSR1)}\n"
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGRTMIN):
        os.kill(one(process), number)
        assert process.stdout.readline() == f"{int(number)}\n"


def test_a_hung_worker_is_killed_and_reported(container):
    """With its stack: watchdog and worker see each other in the namespace."""
    process = container(*UNHANG, "run", "--report-dir", "none", "--", *python(HANG))
    assert process.wait(LONG) == 124
    error = process.stderr.read()
    assert "hangs in 'stuck'" in error
    assert "<string>:2" in error


def test_serve_as_process_1_ends_when_it_is_asked(container, tmp_path):
    """SIGTERM, as a sidecar gets it."""
    tmp_path.chmod(0o700)
    process = container(*UNHANG, "serve", "--address", str(tmp_path / "serve.sock"))
    assert process.stdout.readline().startswith("UNHANG_ADDRESS=")
    os.kill(one(process), signal.SIGTERM)
    assert process.wait(LONG) == 0


def test_without_a_proc_of_its_own_it_refuses(container):
    """There /proc names other processes by the same numbers: nobody may be judged by what it says of them."""
    command = [each for each in capabilities.unshare(*capabilities.CONTAINER) if each != "--mount-proc"]
    done = subprocess.run(
        [*command, *UNHANG, "run", "--", "echo", "started"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 125
    assert done.stdout == ""
    assert "--mount-proc" in done.stderr


SIDECAR = """
cd "$1" && mkdir -m 777 shared && mkdir private
mount_private='mount -t tmpfs -o mode=700 none private'
unshare --mount sh -c "$mount_private"'; exec "$@"' sh \
    "$2" -m unhang serve --address "$1/shared/watchdog/serve.sock" --report-dir private &
sidecar=$!
while [ ! -S shared/watchdog/serve.sock ]; do sleep 0.05; done
unshare --mount sh -c "$mount_private"'; echo "$2" >private/work.py; exec "$1" private/work.py' sh "$2" "$3"
echo status $?
ls private
kill $sidecar; wait $sidecar
"""


def test_a_sidecar_watches_another_container(container, tmp_path):
    """One pid namespace, two mount namespaces, and a directory that is open to all: a pod that shares its processes."""
    tmp_path.chmod(0o700)
    environment = {**os.environ, "UNHANG_ADDRESS": str(tmp_path / "shared" / "watchdog" / "serve.sock")}
    process = container("sh", "-c", SIDECAR, "sh", str(tmp_path), sys.executable, HANG, env=environment)
    output = []
    reader = threading.Thread(target=lambda: output.extend(process.stdout))
    reader.start()
    assert process.wait(LONG) == 0
    reader.join(LONG)
    assert output[-1] == f"status {128 + signal.SIGTERM}\n"
    error = process.stderr.read()
    assert "hangs in 'stuck'" in error
    assert "work.py:2" in error
