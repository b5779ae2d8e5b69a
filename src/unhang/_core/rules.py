"""Whom we may kill: the rules, without asking anybody.

The facts are gathered by `unhang._platform`; a rule that cannot be checked because a fact is missing is the
business of whoever gathers them: it then reports no process at all, and nothing is sent.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Me:
    """The process that would kill."""

    pid: int
    group: int
    users: frozenset[int]  # its real and its effective user id
    ancestors: frozenset[int]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the kernel says about one process at one moment."""

    pid: int
    group: int
    user: int  # its real user id
    start_time: float  # since boot, only to be compared
    tracer: int = 0  # the pid of the debugger that holds it
    exited: bool = False
    stopped: bool = False  # by a signal: SIGSTOP, Ctrl-Z


def refuse_number(pid: int, me: Me) -> str | None:
    """Why this pid, or this process group if it is negative, is never touched whatever it is; else None."""
    if pid in (0, 1, -1):
        return f"pid {pid} is never a worker"
    if pid == me.pid:
        return f"pid {pid} is the watchdog itself"
    if pid in me.ancestors:
        return f"pid {pid} is an ancestor of the watchdog"
    if pid == -me.group:
        return f"process group {-pid} is the watchdog's own"
    return None


def refuse_process(facts: Facts, me: Me) -> str | None:
    """Why a signal is not sent to this process; None when it may be."""
    reason = refuse_number(facts.pid, me)
    if reason is None and facts.user not in me.users:
        reason = f"pid {facts.pid} belongs to another user (uid {facts.user})"
    return reason


def refuse_group(group: int, members: list[Facts], me: Me) -> str | None:
    """Why a signal is not sent to this process group; None when it may be."""
    reason = refuse_number(-group, me)
    for member in members:
        reason = reason or refuse_process(member, me)
    return reason and f"process group {group}: {reason}"
