"""A command's stops and a shell's job control: when the watchdog stops with its command, and when it does not.

The two are in one process group, so what the terminal does to the command it does to the watchdog. Ctrl-Z is meant to
stop the job: the shell takes the terminal back when its child, the watchdog, has stopped. So the watchdog stops, but
only when the command has. SIGTTIN and SIGTTOU stop a command that uses its terminal in the background: no user asked
for that, and the watchdog goes on, or a hang would never end. It blocks them, so the shell takes the job for one that
runs, and would not continue it at ``fg``: the watchdog does.
"""

from __future__ import annotations

import contextlib
import os
import signal

from unhang._core import real_time as time
from unhang._platform.descendants import running

_BACKGROUND = (signal.SIGTTIN, signal.SIGTTOU)
# Seconds that a command may take to stop after Ctrl-Z: it may have to put its terminal in order.
_STOPPING = 5.0


class JobControl:
    """Stops and continues with a command; for the thread that waits for signals.

    Args:
        pid: the command, a child in this process's group.

    Attributes:
        stopped_by: the signal by which the terminal has stopped the command in the background, or None.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stops_until = 0.0
        self.stopped_by: signal.Signals | None = None

    def got(self, number: int) -> None:
        """A signal has come that the command got as well."""
        if number == signal.SIGTSTP:
            self._stops_until = time.monotonic() + _STOPPING
        elif number in _BACKGROUND:
            self.stopped_by = signal.Signals(number)
        elif number == signal.SIGCONT:
            self._stops_until = 0.0

    def turn(self) -> None:
        """Stop, if Ctrl-Z has stopped the command; continue it, if it was stopped and is in the foreground now."""
        if time.monotonic() < self._stops_until and _has_stopped(self._pid):
            self._stops_until = 0.0
            _stop()
        if self.stopped_by is not None and _is_in_foreground():
            self.stopped_by = None
            _continue_group()


def _has_stopped(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    return False


def _stop() -> None:
    """Stop, until the shell continues the job. Without a shell, the kernel lets no process stop for this signal."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})


def _is_in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _continue_group() -> None:
    """Continue what the terminal has stopped: processes of this group, as it stops the group."""
    group = os.getpgrp()
    for each in running():
        seen = each.handle.facts()
        if seen is not None and seen.group == group and seen.stopped:
            each.send(signal.SIGCONT)
