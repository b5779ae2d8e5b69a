"""What is dropped while the interpreter ends."""

import os
import subprocess
import sys

import pytest

KEPT = """
import multiprocessing, os
import unhang
from unhang._platform import descriptor, fifo, process, queue_pipe, waiter
from unhang._worker import {blocks} as blocks, client, slot, slots

queue = multiprocessing.Queue()
modules = [descriptor, fifo, process, queue_pipe, waiter, blocks, client, slot, slots]
timer = blocks.Timer(unhang.SharedTimerClient("/nowhere", on_lost="warn").slots.site("key", "scope", 10**9))
timer.__enter__()
# That module is taken apart after ours.
os.kept = [
    descriptor.OwnFd(os.dup(0)),
    fifo.Fifo(os.path.join({directory!r}, "pipe")),
    process.ProcessHandle.open(os.getpid()),
    queue_pipe.QueueReader(queue),
    queue_pipe.QueueWriter(queue),
    waiter.Waiter(),
    timer,
    unhang.SharedTimerClient("/nowhere"),
    modules,
]
"""


@pytest.mark.parametrize("blocks", ["plain", "implementation"])
def test_what_lives_longer_than_our_modules_ends_in_silence(tmp_path, blocks):
    """No finalizer complains that the globals of its module are gone."""
    program = KEPT.format(blocks=blocks, directory=str(tmp_path))
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=os.environ)
    assert done.returncode == 0
    assert "Exception ignored" not in done.stderr
    assert "Error" not in done.stderr
