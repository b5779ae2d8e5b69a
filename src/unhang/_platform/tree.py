"""A worker's tree of processes: found again and again, and signalled without a miss that can be helped.

What belongs to the tree is decided by `unhang._core.family`. Its members are held by pidfds, each checked to be the
process that the table showed; so a signal reaches a member or nobody. No group is ever signalled as a whole.

Not guaranteed:

- An orphan whose parents were all gone before anybody looked, and which is in no session and no group that a member
  made, is not found: nothing tells any longer where it comes from. `Tree.look` while the worker still lives, a few
  times a second and once more after each signal, makes this rare. Likewise for processes made with ``CLONE_PARENT``.
- A chain of processes, each of which makes the next and exits, is caught if it stays in a session or group that a
  member made; otherwise only if a look falls between a birth and the parent's death.
- A process that the kernel does not let die (state D) is not dead when `Tree.kill` returns; `Tree.alive` counts it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from unhang._core import real_time as time
from unhang._core.family import Family, Kin, Reading, Row
from unhang._core.pid_circle import Mark
from unhang._core.rules import Facts
from unhang._platform.descriptor import past_streams
from unhang._platform.process import ProcessHandle, me
from unhang._platform.table import circle, mark, read_all, read_some, row_of

# A tree holds no more of the descriptors of this process than one in so many; others are told by their start time.
_SHARE = 8
# Looks at the newest processes behind each look at all of them.
_LOOKS = 10
# A number that was given out has a process a moment later: so long, in seconds, a look waits for it.
_BIRTH = 0.002
# So many of the newest numbers are looked at before the others.
_NEWEST = 8
# More new numbers than this are not looked at one by one: all processes are.
_MOST_NUMBERS = 2000
# How long, in seconds, a round of kills is waited for before the next look.
_ROUND = 0.01
# After a signal, so many times those born meanwhile get it as well.
_ROUNDS_OF_A_SIGNAL = 3
# And no longer than this, in seconds.
_LONGEST_SIGNAL = 0.25


@dataclass(slots=True)
class _Member:
    handle: ProcessHandle
    depth: int
    stopped: bool = False  # by us


class Tree:
    """The processes below one worker, and the worker itself.

    For a thread that may be kept for tens of milliseconds; one thread at a time. Close it when done.

    Args:
        root: the worker. The tree keeps a descriptor of its own.
        may: why a process must not be signalled; None if it may be. Asked right before each signal. If the worker
            itself must not be, nobody in its tree is.
    """

    def __init__(self, root: ProcessHandle, may: Callable[[Facts], str | None]) -> None:
        self._may = may
        self._root = root.pid
        self._members = {root.pid: _Member(_duplicate(root), 0)}
        self._most_held = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE
        self._at_once: tuple[int, ...] = ()  # the signals for whoever is found, right when found
        self.trouble: OSError | None = None  # why a look failed, of those that a signal makes
        self._looked = mark()
        self._unborn: dict[int, float] = {}  # numbers without a process yet, until when they are looked at
        self._left: dict[int, str] = {}
        self._circle = circle()
        self._family = self._family_of(root)

    def _family_of(self, root: ProcessHandle) -> Family:
        ours = me()
        row = row_of(root.pid)
        if row is None or row.start_time != root.start_time:
            row = Row(root.pid, 0, 0, 0, root.start_time)
        shared = {ours.group, os.getsid(0)}
        return Family(row, self._circle, {ours.pid, *ours.ancestors}, shared, self._looked if root.alive() else None)

    @property
    def left_alone(self) -> dict[int, str]:
        """Members that were not signalled though they run: pid → why."""
        self._bury()
        return dict(self._left)

    def alive(self) -> int:
        """How many members run and are not left alone; zombies do not run."""
        self._bury()
        return len(self._members) - len(self._left)

    def scan(self) -> int:
        """Look at all processes; returns how many new members there are. Takes some 20 µs for each process.

        Raises:
            OSError: the table cannot be read; for example, this process is short of descriptors.
        """
        self._bury()
        reading = read_all()
        self._looked = reading.began
        return self._meet(reading)

    def look(self) -> int:
        """Look at the processes that have started since the last look; returns how many new members there are.

        Takes some 50 µs when there are few. Where it cannot be told who is new, it is a `scan`.

        Raises:
            OSError: as for `scan`.
        """
        before, now = self._looked, mark()
        numbers = self._circle.given(before, now) if self._circle and before and now else None
        if now is None or numbers is None or not hasattr(os, "pidfd_open"):
            return self.scan()
        self._looked = now
        # The newest have made nobody yet; those before them may wait.
        found = self._look_at(numbers[:_NEWEST], now)
        if len(numbers) > _MOST_NUMBERS:
            return found + self.scan()
        return found + self._look_at([*numbers[_NEWEST:], *self._unborn], now)

    def _look_at(self, numbers: list[int], began: Mark) -> int:
        reading = read_some(numbers, began)
        born = {row.pid for row in reading.rows}
        at = time.monotonic()
        untils = dict.fromkeys(numbers, at + _BIRTH) | self._unborn
        self._unborn = {number: until for number, until in untils.items() if number not in born and until > at}
        return self._meet(reading)

    def _meet(self, reading: Reading) -> int:
        """Hold whoever is found; if some cannot be held, the others are, before that is raised."""
        found = 0
        trouble = None
        for kin in self._family.meet(reading, self._lives):
            try:
                found += self._admit(kin)
            except OSError as error:
                self._family.forget(kin.pid)
                trouble = error
        if trouble is not None:
            raise trouble
        return found

    def _lives(self, pid: int) -> bool:
        return pid in self._members and _runs(self._members[pid].handle, if_unknown=False)

    def _admit(self, kin: Kin) -> bool:
        """Hold a process that belongs to the tree; returns whether it is new, and runs."""
        held = self._members.get(kin.pid)
        if held is not None and held.handle.start_time == kin.start_time:
            return False
        handle = None if kin.exited else ProcessHandle.open(kin.pid)
        if handle is None or handle.start_time != kin.start_time:
            self._family.died(kin.pid)
            if handle is not None:
                handle.close()
            return False
        if held is not None:
            held.handle.close()  # that one has gone, and its number was given again
        if len(self._members) >= self._most_held:
            handle.close()  # it is told by its start time now
        self._members[kin.pid] = member = _Member(handle, kin.depth)
        if self._at_once:
            self._send_all(member, self._at_once)
        return True

    def _bury(self) -> None:
        """Let go of the members that have exited."""
        for pid, member in list(self._members.items()):
            if not _runs(member.handle):
                member.handle.close()
                del self._members[pid]
                self._left.pop(pid, None)
                self._family.died(pid)

    def signal(self, number: int, *, wake: bool = False) -> int:
        """Signal all members, the deepest first and the worker last; returns how many got it.

        Those that are born meanwhile get it as well, if a few looks find them.

        Args:
            number: the signal.
            wake: send each SIGCONT behind it, so that one that is stopped takes it.
        """
        if self._is_protected():
            return 0
        give_up = time.monotonic() + _LONGEST_SIGNAL
        self._search(give_up)
        numbers = (number, signal.SIGCONT) if wake else (number,)
        count = sum(self._send_all(member, numbers) for member in self._deepest_first())
        with self._at_once_to_new(*numbers):
            for _ in range(_ROUNDS_OF_A_SIGNAL):
                new = self._search(give_up)
                count += new
                if not new:
                    break
        return count

    def kill(self, within: float = 1.0) -> int:
        """Kill all members, and those that they make meanwhile; returns how many still run.

        First all are stopped, from the worker down, until nobody new is found: so nobody makes another one, and no
        orphan is lost. Then they are killed, the deepest first, until nobody runs and nobody new is found.

        Args:
            within: seconds after which no new round begins; a round takes milliseconds, in a tree of thousands seconds.
                Who is left then has been sent the signal, and the kernel has not let it die; or the tree grew faster
                than it was cut.
        """
        give_up = time.monotonic() + within
        if self._is_protected():
            return self.alive()
        try:
            self._freeze(give_up - within / 2)
            self._end(give_up)
        finally:
            self._thaw()
        return self.alive()

    def wait(self, timeout: float) -> bool:
        """Wait until no member runs that was signalled, at most so many seconds; returns whether that is so."""
        give_up = time.monotonic() + timeout
        for pid, member in list(self._members.items()):
            if pid not in self._left:
                _wait_for(member.handle, give_up)
        return not self.alive()

    def close(self) -> None:
        """Give the descriptors back. May be called twice."""
        for member in self._members.values():
            member.handle.close()
        self._members.clear()

    def _is_protected(self) -> bool:
        """Whether the worker must not be signalled, and so nobody in its tree."""
        worker = self._members.get(self._root)
        return worker is not None and self._facts_if_allowed(worker) is None and _runs(worker.handle)

    def _freeze(self, give_up: float) -> None:
        for member in reversed(self._deepest_first()):
            self._send(member, signal.SIGSTOP)
        with self._at_once_to_new(signal.SIGSTOP):
            while self._search(give_up) and time.monotonic() < give_up:
                pass

    def _end(self, give_up: float) -> None:
        with self._at_once_to_new(signal.SIGKILL):
            while True:
                for member in self._deepest_first():
                    self._send(member, signal.SIGKILL)
                dead = self.wait(_ROUND)
                new = self._search(give_up)
                if (dead and not new and not self.alive()) or time.monotonic() >= give_up:
                    return

    def _thaw(self) -> None:
        """Let those go on that were stopped and not killed."""
        for member in self._members.values():
            if member.stopped:
                with contextlib.suppress(OSError):
                    member.handle.send(signal.SIGCONT)

    def _search(self, give_up: float) -> int:
        """Look at all processes, and then again and again at the newest; returns how many new members there are."""
        found = 0
        try:
            found += self.scan()
            for _ in range(_LOOKS):
                if time.monotonic() < give_up:
                    found += self.look()
        except OSError as error:
            self.trouble = error
        return found

    @contextlib.contextmanager
    def _at_once_to_new(self, *numbers: int) -> Iterator[None]:
        self._at_once = numbers
        try:
            yield
        finally:
            self._at_once = ()

    def _deepest_first(self) -> list[_Member]:
        members = list(self._members.values())
        members.sort(key=lambda member: (member.depth, member.handle.start_time, member.handle.pid), reverse=True)
        return members

    def _send_all(self, member: _Member, numbers: tuple[int, ...]) -> bool:
        """Send one signal after the other; returns whether the first was sent: it may end the process."""
        sent = [self._send(member, number) for number in numbers]
        return sent[0]

    def _send(self, member: _Member, number: int) -> bool:
        """Send a signal to one member, if it may be signalled."""
        seen = self._facts_if_allowed(member)
        if seen is None:
            return False
        try:
            member.handle.send(number)
        except ProcessLookupError:
            return False
        except OSError as error:
            self._left[seen.pid] = f"the kernel does not let us signal pid {seen.pid}: {error.strerror}"
            return False
        if number == signal.SIGSTOP:
            member.stopped = member.stopped or not seen.stopped
        elif number in (signal.SIGKILL, signal.SIGCONT):
            member.stopped = False
        return True

    def _facts_if_allowed(self, member: _Member) -> Facts | None:
        """What is known of a member that runs and may be signalled; else it is noted why not."""
        pid = member.handle.pid
        try:
            seen = member.handle.facts()
            refusal = self._may(seen) if seen is not None else None
        except OSError as error:
            seen, refusal = None, f"nothing can be told of pid {pid}: {error.strerror}"
        if refusal is None:
            self._left.pop(pid, None)
            return seen
        self._left[pid] = refusal
        return None


def _duplicate(handle: ProcessHandle) -> ProcessHandle:
    fd = -1
    if handle.fd >= 0:
        with contextlib.suppress(OSError):  # of descriptors it may be short: the start time does
            fd = past_streams(os.dup(handle.fd))
    return ProcessHandle(handle.pid, handle.start_time, fd)


def _runs(handle: ProcessHandle, *, if_unknown: bool = True) -> bool:
    try:
        return handle.alive()
    except OSError:  # there is no pidfd, and no descriptor to read a file by
        return if_unknown


def _wait_for(handle: ProcessHandle, give_up: float) -> None:
    """Wait until a process has exited, or until an instant of the monotonic clock."""
    if handle.fd >= 0:
        poll = select.poll()
        poll.register(handle.fd, select.POLLIN)
        poll.poll(max(0.0, give_up - time.monotonic()) * 1000)
        return
    while _runs(handle) and (left := give_up - time.monotonic()) > 0:
        time.sleep(min(left, 0.001))
