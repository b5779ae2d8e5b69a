"""A command and the orphans that it leaves: starting it, and waiting for all of them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
from collections.abc import Mapping

from unhang._platform import dispositions, pyspy, servants

_PR_SET_CHILD_SUBREAPER = 36


def shows_our_processes() -> bool:
    """Whether ``/proc`` tells of the pids that this process knows, and not of another pid namespace's (Linux)."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def become_subreaper() -> bool:
    """Let orphans of this process's descendants become its children (Linux). False where that cannot be had."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def spawn(
    command: list[str], environment: Mapping[str, str], mask: set[signal.Signals], *, stderr: int | None = None
) -> int:
    """Start a command, looked up in ``PATH``, with this signal mask; returns its pid.

    What this process was given as ignored is ignored there, as far as that is known (`unhang._platform.dispositions`).

    Args:
        command: it and its arguments.
        environment: its environment.
        mask: the signals that it blocks.
        stderr: a descriptor that becomes its standard error; None: ours.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be started.
    """
    reset = dispositions.to_reset()
    actions = [] if stderr is None else [(os.POSIX_SPAWN_DUP2, stderr, 2)]
    try:
        return os.posix_spawnp(command[0], command, environment, setsigmask=mask, setsigdef=reset, file_actions=actions)
    except OSError as error:
        # The search goes on after a directory of PATH that may not be entered, but its error stays.
        if error.errno == errno.EACCES and not _is_somewhere(command[0]):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0]) from None
        path = shutil.which(command[0])
        if error.errno != errno.ENOEXEC or path is None:
            raise
        # A script without a first line that says what runs it is the shell's, as for any shell.
        shell = ["/bin/sh", path, *command[1:]]
        return os.posix_spawn(shell[0], shell, environment, setsigmask=mask, setsigdef=reset, file_actions=actions)


def _is_somewhere(name: str) -> bool:
    """Whether there is a file of this name, or anything else, where a command is looked up."""
    if os.path.dirname(name):
        return True
    return any(os.path.lexists(os.path.join(directory, name)) for directory in os.get_exec_path())


def reap(*surely: int) -> dict[int, int]:
    """The children that have ended, but for tools of ours: pid → exit status, negative for a signal.

    One may be overlooked that ends at the same moment as another, until the next call; but not those in ``surely``.
    """
    ended = {}
    for child in {*surely, *own_children()}:
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def own_children() -> list[int]:
    """The pids of this process's children, also those that have ended; without tools of ours, which others wait for.

    In a subreaper, no process is left of those that it has started when this is empty.
    """
    pids: list[int] = []
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children", "rb") as file:
                pids += map(int, file.read().split())
    except OSError:  # a kernel without these files, or a thread that ends just now
        import psutil

        pids = [child.pid for child in psutil.Process().children()]
    return [pid for pid in pids if not _is_ours(pid)]


def _is_ours(pid: int) -> bool:
    return pyspy.is_ours(pid) or servants.is_one(pid)
