"""Ends what a test leaves behind: every process below this one that was not there before, orphans included."""

import contextlib
import ctypes
import multiprocessing
import os
import time
from multiprocessing import forkserver, resource_tracker

from processes import children, descendants, has_ended, kill, kill_tree
from support import LONG

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans(adopt=True):
    """Let a process whose parent below this one has ended become a child of this one, and not of process 1; or not."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


@contextlib.contextmanager
def no_process_left():
    """Kill at the end what has been started meanwhile, and wait until it is gone.

    Raises:
        TimeoutError: a process does not end.
    """
    before = set(children(os.getpid()))
    yield
    give_up = time.monotonic() + LONG
    while left := set(children(os.getpid())) - before - _helpers():
        if time.monotonic() > give_up:
            raise TimeoutError(f"processes do not end: {left}")
        for pid in left:
            _end(pid)
    for helper in _helpers():
        kill(descendants(helper))


def _helpers():
    """The processes that multiprocessing keeps for the next use."""
    return {resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid} - {None}


def _end(pid):
    """Kill a child of this process and its descendants. These become our children as their parents end."""
    kill_tree(pid)
    for process in multiprocessing.active_children():
        if process.pid == pid:  # or else it would be taken for one that runs
            process.join(LONG)
            return
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        if has_ended(pid, LONG):
            os.waitpid(pid, 0)
