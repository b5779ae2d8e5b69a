"""Which signals this process was given as ignored.

Python ignores SIGPIPE and SIGXFSZ when it starts, and nothing says afterwards what they were before. So the parent is
asked: shells, and tools that start a command in a process of its own, hand on what they ignore themselves, and so does
systemd with SIGPIPE (``IgnoreSIGPIPE=``). Many other parents (Python, Rust, Node) ignore SIGPIPE and reset it for what
they start: there these two are taken as having been given with their defaults.
"""

from __future__ import annotations

import os
import signal

_CHANGED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_SHELLS = frozenset({"sh", "ash", "dash", "bash", "ksh", "mksh", "zsh", "busybox"})
_TOOLS = frozenset(
    {"env", "make", "nice", "nohup", "setsid", "stdbuf", "taskset", "time", "timeout", "unshare", "xargs"}
)
_HAND_ON = _SHELLS | _TOOLS
_SYSTEMD = "systemd"

_given: frozenset[signal.Signals] | None = None


def note() -> None:
    """Look at the parent now: to be called early, since it may end."""
    global _given  # noqa: PLW0603 - a process is given them once
    if _given is None:
        _given = _ignored_by(os.getppid()) if _hands_on(os.getppid()) else frozenset()


def to_reset() -> list[signal.Signals]:
    """The signals that Python has changed, and that are to have their defaults in a command."""
    note()
    return [number for number in _CHANGED_BY_PYTHON if number not in (_given or ())]


def _hands_on(pid: int) -> bool:
    name = _name(pid)
    return name in _HAND_ON or (name == _SYSTEMD and "INVOCATION_ID" in os.environ)


def _name(pid: int) -> str:
    """What program a process runs; empty if that cannot be found out."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    except OSError:
        pass  # of another user: its name is all there is
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def _ignored_by(pid: int) -> frozenset[signal.Signals]:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        mask = int(fields.get("SigIgn", "0"), 16)
    except (OSError, ValueError):
        return frozenset()
    return frozenset(number for number in _CHANGED_BY_PYTHON if mask >> (number - 1) & 1)
