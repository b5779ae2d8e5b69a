"""Ours and torch's, each as client and as server of the other."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed.elastic.timer as torch_timer
import torch.multiprocessing
from torch.distributed.elastic.agent.server.local_elastic_agent import TORCHELASTIC_ENABLE_FILE_TIMER

import unhang
import workers
from support import until

# Two of torch's servers behave so that a test has to allow for it: a FileTimerServer kills its own process after a
# kill, so it runs in a process of its own, and both look for expired timers once an interval.
INTERVAL = 0.01


def hang(client, after, say):
    """Hang in a block of torch's own expires()."""
    torch_timer.configure(client)
    say.send("ready")
    with torch_timer.expires(after=after):
        time.sleep(workers.FOREVER)


def finish(client, count, say):
    """Enter and leave blocks of torch's own expires()."""
    torch_timer.configure(client)
    for _ in range(count):
        with torch_timer.expires(after=60, scope="scope"):
            pass
    say.send("done")
    if isinstance(client, torch_timer.LocalTimerClient):
        client._mp_queue.close()
        client._mp_queue.join_thread()


def serve_with_torch(path, say):
    """Run torch's FileTimerServer until it ends itself."""
    server = torch_timer.FileTimerServer(path, "test", max_interval=INTERVAL)
    server.start()
    say.send("started")
    time.sleep(workers.FOREVER)


@pytest.mark.parametrize("context", [multiprocessing, torch.multiprocessing], ids=lambda context: context.__name__)
def test_torchs_queue_client_with_our_server(context, start):
    """A worker that uses torch's client is killed by our server, and lives while its blocks end in time."""
    queue = context.get_context("spawn").Queue()
    server = unhang.LocalTimerServer(queue)
    server.start()
    client = torch_timer.LocalTimerClient(queue)
    assert start(finish, client, 5).ended() == 0
    until(lambda: len(server._timers) == 0)
    assert start(hang, client, 0.2).ended() == -signal.SIGKILL
    server.stop()


def test_our_queue_client_with_torchs_server(start):
    """A worker that uses our client is killed by torch's server, which reads our requests as its own."""
    queue = multiprocessing.get_context("spawn").Queue()
    server = torch_timer.LocalTimerServer(queue, max_interval=INTERVAL)
    server.start()
    client = unhang.LocalTimerClient(queue)
    assert start(workers.blocks_in_time, client, 5).ended() == 0
    until(lambda: queue.qsize() == 0 and len(server._timers) == 0)
    assert start(workers.keep_the_gil, client, 0.2).ended() == -signal.SIGKILL
    server.stop()


def test_torchs_pipe_client_with_our_server(start, file_server, pipe_path):
    """A worker that uses torch's client is killed by our server, and lives while its blocks end in time."""
    file_server.start()
    client = torch_timer.FileTimerClient(pipe_path)
    assert start(finish, client, 5).ended() == 0
    until(lambda: file_server._request_count == 10 and len(file_server._timers) == 0)
    assert start(hang, client, 0.2).ended() == -signal.SIGKILL


def test_our_pipe_client_with_torchs_server(start, pipe_path):
    """A worker that uses our client is killed by torch's server."""
    server = start(serve_with_torch, pipe_path)
    assert server.heard() == "started"
    client = unhang.FileTimerClient(pipe_path)
    assert start(workers.blocks_in_time, client, 5).ended() == 0
    assert start(workers.keep_the_gil, client, 0.2).ended() == -signal.SIGKILL


def test_requests_are_the_same_on_the_wire():
    """What torch writes for a request, we write."""
    fields = {"worker_pid": 7, "scope_id": "ä", "expiration_time": 1.5, "signal": 9}
    assert unhang.FileTimerRequest(**fields).to_json() == torch_timer.FileTimerRequest(**fields).to_json()


@pytest.mark.budget(330)
def test_our_package_in_torchs_place(tmp_path):
    """The tests of the contract pass with our modules under torch's names beside the rest of the real torch."""
    contract = Path(__file__).parents[1] / "contract"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", str(contract)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=contract.parents[1],
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        check=False,
    )
    assert done.returncode == 0, done.stdout


TRAIN = """
import ctypes, os, sys, time
import unhang
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
unhang.configure(unhang.FileTimerClient(os.environ["TORCHELASTIC_TIMER_FILE"]))
for step in range(3):
    with unhang.expires(after=1):
        if attempt == 0 and step == 1 and os.environ["RANK"] == "1":
            ctypes.PyDLL(None).sleep(600)
os.write(1, f"trained {os.environ['RANK']} in attempt {attempt}\\n".encode())
"""

LAUNCH = f"""
import sys, types
import torch.distributed.elastic as elastic
import unhang, unhang.api
name = "torch.distributed.elastic.timer"
elastic.timer = sys.modules[name] = unhang
sys.modules[name + ".api"] = unhang.api
import os
os.environ["{TORCHELASTIC_ENABLE_FILE_TIMER}"] = "1"
from torch.distributed.run import main
main(["--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "--monitor-interval", "0.1", sys.argv[1]])
"""


@pytest.mark.budget(150)
def test_a_real_torchrun_with_our_server_in_its_agent(tmp_path):
    """A rank that hangs with the GIL held is killed, its agent survives, and restarts the job to its end."""
    train = tmp_path / "train.py"
    train.write_text(TRAIN)
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(train)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert f"trained {rank} in attempt 1" in done.stdout
