"""Faults 4, 5, 6, 11 and 13: what can happen to a server that listens to a named pipe, and to its clients."""

from __future__ import annotations

import os
import select
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from chaos_stage import (
    HANG,
    BrokenScenarioError,
    Outcome,
    Stage,
    arm_and_hang,
    await_judgement,
    failed,
    killed_in_time,
    survived,
    wait_until,
)

# Seconds in which no client comes, and the age of its progress at which an agent would call a server ill.
QUIET = 5.0
ILL = 3.5
# They take more than 1 MiB, the most that a pipe holds.
BLOCKS = 8_000


def writer_stops(stage: Stage, written: str) -> Outcome:
    """A writer opens the pipe, writes so much, and is stopped; a hung worker is due afterwards."""
    stage.serve()
    writer = stage.worker(_open_and_stop, written)
    writer.hear()
    writer.await_stop()
    return killed_in_time(stage.hung(0.5))


def _open_and_stop(stage: Stage, written: str, pipe: Connection) -> None:
    with Path(stage.path).open("w") as fifo:
        fifo.write(written)
        fifo.flush()
        pipe.send("open")
        os.kill(os.getpid(), signal.SIGSTOP)


def late_first_client(stage: Stage) -> Outcome:
    """Nobody comes for five seconds; how old is the server's progress when the first client is there?"""
    server = stage.serve(max_interval=None)
    time.sleep(QUIET)
    stage.worker(arm_and_hang, float(HANG)).hear()
    wait_until(lambda: bool(server.ask(_has_client)), "the server to notice its first client")
    age: float = server.ask(_progress_age)
    line = f"its progress is {age:.1f} s old when the first client has come"
    return survived(line) if age < ILL else failed(line)


def _has_client(server: Any) -> bool:
    return bool(server._is_client_started)


def _progress_age(server: Any) -> float:
    return time.time() - float(server.get_last_progress_time())


def full_pipe(stage: Stage) -> Outcome:
    """A worker fills the pipe of a server that is stopped for a second."""
    server = stage.serve()
    worker = stage.worker(_arm_many)
    worker.hear()
    server.stop()
    worker.pipe.send("go")
    wait_until(lambda: _is_full(stage.path) or worker.pipe.poll(0), "a full pipe")
    worker.pipe.poll(1.0)
    server.send_signal(signal.SIGCONT)
    trouble = worker.hear()
    if trouble is not None:
        return failed(trouble)
    trouble = await_judgement(server, stage.hung(0.3))
    return failed(trouble) if trouble else survived(f"the worker waits, all of its {BLOCKS} blocks end well")


def _arm_many(stage: Stage, pipe: Connection) -> None:
    client = stage.client()
    block = 0
    with stage.api.expires(after=HANG, scope="first", client=client):
        pipe.send("connected")
        pipe.recv()
    try:
        for block in range(1, BLOCKS + 1):
            with stage.api.expires(after=HANG, scope=f"block {block}", client=client):
                pass
    except OSError as error:
        pipe.send(f"{type(error).__name__} out of block {block}, in the worker's own code")
    else:
        pipe.send(None)
    time.sleep(HANG)


def _is_full(path: str) -> bool:
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        return not poll.poll(0)
    finally:
        os.close(fd)


def server_dies(stage: Stage) -> Outcome:
    """The server is killed while a worker is in a block."""
    server = stage.serve()
    worker = stage.worker(_leave_when_told)
    worker.hear()
    server.send_signal(signal.SIGKILL)
    if not server.dead_within(1):
        raise BrokenScenarioError("the server cannot be killed")
    worker.pipe.send("leave")
    error, seconds = worker.hear()
    if error is not None:
        return failed(f"{error} out of the block's end, after {seconds:.1f} s")
    return survived(f"the block ends without an error, after {seconds:.1f} s")


def _leave_when_told(stage: Stage, pipe: Connection) -> None:
    client, error, told = stage.client(), None, 0.0
    try:
        with stage.api.expires(after=HANG, scope="step", client=client):
            pipe.send("in the block")
            pipe.recv()
            told = time.monotonic()
    except OSError as raised:
        error = type(raised).__name__
    pipe.send((error, time.monotonic() - told))
    time.sleep(HANG)


def server_kills(stage: Stage) -> Outcome:
    """The server kills a hung worker: is it there for the next one?"""
    server = stage.serve()
    trouble = await_judgement(server, stage.hung(0.3)) or await_judgement(server, stage.hung(0.3))
    return failed(trouble) if trouble else survived("it kills the next hung worker too")


def file_at_path(stage: Stage) -> Outcome:
    """An ordinary file stands at the path given to the server."""
    path = Path(stage.path)
    path.write_text("results\n")
    answer = "no error"
    try:
        stage.build(None)
    except FileExistsError as error:
        answer = type(error).__name__
    if path.is_file() and path.read_text() == "results\n":
        return survived(f"{answer}, and the file is as it was")
    return failed(f"{answer}, and the file is deleted")
