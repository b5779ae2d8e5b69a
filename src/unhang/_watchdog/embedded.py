"""The process of a watchdog that a worker has started for itself; see `unhang._worker.embedded`."""

from __future__ import annotations

import resource
import select
import signal

from unhang._platform.logs import log_to_stderr
from unhang._platform.process import ProcessHandle
from unhang.shared_timer import SharedTimerServer

# Milliseconds between two looks whether the last worker has left, once the owner is gone.
_LEAVING = 1000


def main(address: str, listener: int, lifeline: int, owner: int) -> None:
    """Watch until the owner is gone, and everybody else too.

    Args:
        address: where ``listener`` listens.
        listener: a descriptor.
        lifeline: a descriptor that ends when the owner exits or lets go.
        owner: its pid.
    """
    log_to_stderr()
    raise_file_limit()
    # A job's signals are meant for the job. It ends with it.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    server = SharedTimerServer(address, listener=listener)
    server.start()
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    handle = ProcessHandle.open(owner)
    if handle is not None and handle.fd >= 0:
        poll.register(handle.fd, select.POLLIN)
    if handle is not None:
        poll.poll()
    poll = select.poll()
    while server.workers:
        poll.poll(_LEAVING)
    server.stop()


def raise_file_limit() -> None:
    """Take all the descriptors that this process may have: each worker needs a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
