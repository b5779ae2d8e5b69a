"""The signal to a worker, and the last checks in front of it."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable

from unhang._core.rules import Facts, Me, refuse_group, refuse_process
from unhang._platform import pyspy
from unhang._platform.group import GroupHandle
from unhang._platform.process import ProcessHandle, me

logger = logging.getLogger(__name__)


class Outcome(enum.Enum):
    """What became of an attempt to signal a worker."""

    SIGNALLED = "signalled"
    GONE = "gone"  # it had exited already, or was never there
    REFUSED = "refused"  # the rules protect it
    HELD = "held"  # a debugger holds it
    FAILED = "failed"  # the kernel did not let us
    SPARED = "spared"  # it has left its block
    LATER = "later"  # it is still in its block, which gets time back
    PENDING = "pending"  # it takes its time: whoever does it says how it ended


def refusal_of(handle: ProcessHandle, also: frozenset[int] = frozenset()) -> str | None:
    """Why this process is never signalled; None when it may be.

    Args:
        handle: the process.
        also: whose processes may be signalled, besides this user's.
    """
    seen = handle.facts()
    return None if seen is None else refuse_process(seen, _me(also, fresh=True))


def refusal_of_relative(seen: Facts, also: frozenset[int]) -> str | None:
    """Why a process that a worker has started is not signalled; None when it may be."""
    if seen.tracer and not pyspy.is_ours(seen.tracer):
        return f"a debugger holds pid {seen.pid}"
    return refuse_process(seen, _me(also))


def _me(also: frozenset[int], *, fresh: bool = False) -> Me:
    ours = me(fresh=fresh)
    return Me(ours.pid, ours.group, ours.users | also, ours.ancestors) if also else ours


def _always() -> None:
    return None


def judge(handle: ProcessHandle, also: frozenset[int], *, spare_stopped: bool) -> Outcome | None:
    """What keeps a worker from being signalled at this moment; None if nothing does. Arguments as for `send`."""
    try:
        refusal, held = _look_again(handle, also, spare_stopped=spare_stopped)
    except OSError:
        return Outcome.FAILED
    if refusal is not None:
        logger.error("Not ending pid %s: %s", handle.pid, refusal)
        return Outcome.REFUSED
    if held:
        return Outcome.HELD
    return None if handle.alive() else Outcome.GONE


def rehearse(handle: ProcessHandle, also: frozenset[int]) -> None:
    """Find out all that `send` does, for nothing."""
    if handle.alive():
        _look_again(handle, also, spare_stopped=False)


def send(
    handle: ProcessHandle | GroupHandle,
    number: int,
    also: frozenset[int] = frozenset(),
    still: Callable[[], Outcome | None] = _always,
    *,
    spare_stopped: bool = False,
) -> Outcome:
    """Send a signal, unless the rules or a debugger protect the process by now.

    Args:
        handle: whom to signal.
        number: the signal.
        also: as for `refusal_of`.
        still: asked last of all why not; nothing is sent unless it says None.
        spare_stopped: whether a process that a signal has stopped is as one in a debugger.
    """
    if isinstance(handle, ProcessHandle) and not handle.alive():
        return Outcome.GONE
    try:
        refusal, held = _look_again(handle, also, spare_stopped=spare_stopped)
        if refusal is not None:
            logger.error("Not sending signal %s: %s", number, refusal)
        if refusal is not None or held:
            return Outcome.HELD if refusal is None else Outcome.REFUSED
        outcome = still()
        if outcome is not None:
            return outcome
        handle.send(number)
    except ProcessLookupError:
        return Outcome.GONE
    except OSError:
        logger.exception("Error sending signal %s to pid=%s", number, handle.pid)
        return Outcome.FAILED
    return Outcome.SIGNALLED


def _look_again(
    handle: ProcessHandle | GroupHandle, also: frozenset[int], *, spare_stopped: bool
) -> tuple[str | None, bool]:
    """Why the worker may not be killed by now, and whether a debugger holds it, or a signal that counts as one."""
    ours = _me(also)
    if isinstance(handle, GroupHandle):
        members = handle.members()
        return refuse_group(-handle.pid, members, ours), any(member.tracer for member in members)
    seen = handle.facts()
    if seen is None:
        return None, False  # it exits just now: the signal will find nobody
    # What looks at its stacks for us is no debugger.
    traced = bool(seen.tracer) and not pyspy.is_ours(seen.tracer)
    return refuse_process(seen, ours), traced or (spare_stopped and seen.stopped)
