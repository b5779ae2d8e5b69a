"""Processes as the kernel knows them: children, descendants, and whether they have ended."""

import contextlib
import glob
import os
import signal
from multiprocessing import connection

# Kept, since tests take it away from the product.
pidfd_open = os.pidfd_open


def children(pid):
    """The pids of a process's children, those that have ended and were not waited for included."""
    found = []
    for task in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(task) as file:
            found += map(int, file.read().split())
    return found


def descendants(pid):
    """The pids of all processes below a process, parents first."""
    found = children(pid)
    for child in found:
        found += children(child)
    return found


def kill(pids):
    """SIGKILL each of these processes that exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_tree(pid):
    """SIGKILL a process and its descendants."""
    kill([pid, *descendants(pid)])


def has_ended(pid, timeout):
    """Whether a child that was not waited for ends within some seconds."""
    handle = pidfd_open(pid)
    try:
        return bool(connection.wait([handle], timeout))
    finally:
        os.close(handle)
