"""Signals that are meant for the command and reach its watchdog: taken without handlers, and passed on."""

from __future__ import annotations

import contextlib
import os
import signal

# Not to be caught, or about this process's own doing, or better left to their defaults.
_OWN = {
    "SIGKILL", "SIGSTOP", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS",
    "SIGPIPE", "SIGXCPU", "SIGXFSZ", "SIGCHLD",
}  # fmt: skip


# The mask of this process before `hold`, if that was called.
_before_hold: set[int] | None = None


def hold() -> None:
    """As process 1: keep the signals that come before `block`, which the kernel drops there if nobody handles them."""
    global _before_hold  # noqa: PLW0603 - as the mask itself, there is one
    if os.getpid() == 1:
        _before_hold = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, _waited())}


def block() -> tuple[set[int], set[signal.Signals]]:
    """Block what is to be passed on, and SIGCHLD, in this thread and those that it starts.

    Returns these signals, to wait for, and the mask before, for the command.
    """
    # A parent that ignores SIGCHLD would have its children reaped by the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    waited = _waited()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited) if _before_hold is None else _before_hold
    return waited, {signal.Signals(number) for number in before}


def _waited() -> set[int]:
    own = {int(getattr(signal, name)) for name in _OWN if hasattr(signal, name)} - {int(signal.SIGCHLD)}
    # Those between the standard and the real-time ones are the C library's.
    return {int(number) for number in signal.valid_signals() if not 31 < number < signal.SIGRTMIN} - own


def wait(numbers: set[int], timeout: float) -> signal.struct_siginfo | None:
    """The next of these signals; None when none came within so many seconds."""
    return signal.sigtimedwait(numbers, max(0.0, timeout))


def pass_on(info: signal.struct_siginfo, pid: int) -> None:
    """Let the command have a signal, unless the terminal has sent it to the command as well."""
    # A terminal that is closed tells its session's leader alone.
    from_terminal = info.si_code > 0 and info.si_signo != signal.SIGHUP
    if not from_terminal:
        with contextlib.suppress(OSError):
            os.kill(pid, info.si_signo)
