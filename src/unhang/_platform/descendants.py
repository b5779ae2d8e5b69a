"""Every process below this one: listed, signalled, and ended so that no chain of forks gets away.

This process has to be their subreaper: then whoever loses its parent becomes its child, and no member is ever lost
for long. Tools that it has started for itself are left out, with all that is below them.

Some facts: a process whose first thread has ended looks like a zombie and lives on; it counts as one that runs. A chain
of processes, each of which makes the next and exits, is in no table for longer than a moment, but each link becomes
this process's child when the one before it exits, and a list of one's own children takes some microseconds to read.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from unhang._core import real_time as time
from unhang._platform import pyspy, servants
from unhang._platform.children import own_children
from unhang._platform.process import ProcessHandle
from unhang._platform.table import read_all

# Seconds in which the list of our own children is read again and again, between two looks at all processes.
_HUNT = 0.01
# Looks at all processes, one after the other, that must find nobody new.
_QUIET = 2
# After a signal, at most so many times those born meanwhile get it too.
_ROUNDS_OF_A_SIGNAL = 3
# Seconds between two looks at those that were killed.
_ROUND = 0.005


@dataclass(frozen=True)
class Descendant:
    """A process below this one; ``depth`` is 0 for a child of this one."""

    handle: ProcessHandle
    parent: int
    depth: int

    @property
    def key(self) -> tuple[int, float]:
        """Who it is: its pid alone may be given to another."""
        return self.handle.pid, self.handle.start_time

    def send(self, *numbers: int) -> bool:
        """Send signals, one after the other; returns whether all of them were sent."""
        try:
            for number in numbers:
                self.handle.send(number)
        except OSError:
            return False
        return True


def running() -> list[Descendant]:
    """Those that run, the parents first; one that has exited and is not waited for yet does not.

    Raises:
        OSError: this process is short of descriptors.
    """
    children: dict[int, list[int]] = {}
    for row in read_all().rows:
        children.setdefault(row.parent, []).append(row.pid)
    found = []
    level = [(os.getpid(), pid) for pid in sorted(children.get(os.getpid(), []))]
    depth = 0
    while level:
        level = [(parent, pid) for parent, pid in level if not _is_ours(pid)]
        for parent, pid in level:
            handle = ProcessHandle.open(pid)
            if handle is not None:
                found.append(Descendant(handle, parent, depth))
        level = [(parent, pid) for _, parent in level for pid in sorted(children.get(parent, []))]
        depth += 1
    return found


def _is_ours(pid: int) -> bool:
    return pyspy.is_ours(pid) or servants.is_one(pid)


def send_all(*numbers: int) -> int:
    """Send signals, one after the other, to all that run, the deepest first; returns how many processes got them.

    Those that are born meanwhile get them as well, if a few looks find them.
    """
    reached: set[tuple[int, float]] = set()
    for _ in range(_ROUNDS_OF_A_SIGNAL):
        new = [each for each in reversed(running()) if each.key not in reached]
        reached |= {each.key for each in new if each.send(*numbers)}
        if not new:
            break
    return len(reached)


def kill_all(reap: Callable[[], object], within: float = 1.0) -> int:
    """Kill all of them, and those that they make meanwhile; returns how many are left.

    First all are stopped, the parents first, until nobody new is found: so nobody makes another one. For the thread
    that started COMMAND, which alone may wait for children.

    Args:
        reap: waits for the children that have ended.
        within: seconds after which no new round begins.
    """
    give_up = time.monotonic() + within
    _stop_all(reap, give_up - within / 2)
    while own_children():
        left = running()
        for each in reversed(left):
            each.send(signal.SIGKILL)
        if time.monotonic() >= give_up:
            return len(left)
        time.sleep(_ROUND)
        reap()
    return 0


def _stop_all(reap: Callable[[], object], give_up: float) -> None:
    stopped: set[tuple[int, float]] = set()
    quiet = 0
    while quiet < _QUIET and time.monotonic() < give_up:
        reap()
        new = [each for each in running() if each.key not in stopped]
        for each in new:
            each.send(signal.SIGSTOP)
            stopped.add(each.key)
        caught = _stop_orphans({pid for pid, _ in stopped})
        quiet = 0 if new or caught else quiet + 1


def _stop_orphans(known: set[int]) -> int:
    """Stop whoever becomes our child in the next moment; returns how many did."""
    seen = set(known)
    until = time.monotonic() + _HUNT
    count = 0
    while time.monotonic() < until:
        for pid in _children_of_main_thread():
            if pid not in seen:
                seen.add(pid)
                count += _stop_child(pid)
    return count


def _stop_child(pid: int) -> bool:
    """Stop a child of ours. Nobody else gets its pid before we have waited for it."""
    if _is_ours(pid):
        return False
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGSTOP)
    return True


def _children_of_main_thread() -> list[int]:
    """Our children that were orphans, and COMMAND: quicker to read than those of all threads."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb", buffering=0) as file:
            return [int(pid) for pid in file.read(1 << 20).split()]
    except OSError:  # a kernel without these files
        return []
