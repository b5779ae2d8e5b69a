"""Workers and their expired timers, as the watch and those who act for it see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from unhang._core.credits import Credits
from unhang._core.identity import Identity
from unhang._core.page_reader import Snapshot
from unhang._core.timer_reader import Arming, TimerReader
from unhang._platform.descriptor import OwnFd
from unhang._platform.look import Look
from unhang._platform.memory_group import MemoryGroup
from unhang._platform.process import ProcessHandle
from unhang._platform.turns import Turns
from unhang._watchdog.kill import Outcome


@dataclass(frozen=True, slots=True)
class Expired:
    """A timer that has expired.

    Attributes:
        scope: its name.
        after: the time that its block was given, in seconds.
        late: seconds since its deadline, without what was given back to it; negative before it.
        running: seconds since it was armed.
        ending: how it wants its worker to be ended, as `unhang._core.page.ending` has it; 0: as the watchdog does.
        thread: the kernel's id of the thread that probably armed it; 0: not known.
        seen: its slot when it was judged.
    """

    scope: str
    after: float
    late: float
    running: float
    ending: int = field(default=0, repr=False)
    thread: int = field(default=0, repr=False)
    seen: Snapshot | None = field(default=None, repr=False, compare=False)


@dataclass(eq=False, slots=True)
class Origin:
    """Where a worker comes from, and what helps to find out about it."""

    identity: Identity = field(default_factory=Identity)
    user: int | None = None
    stack_signal: int = 0  # on which it writes its stacks; 0: on none
    stack_file: OwnFd | None = None  # into which
    memory: MemoryGroup | None = None
    memory_kills: int | None = None  # how many the kernel had killed for want of memory there when it came


@dataclass(eq=False, slots=True)
class Watched:
    """One worker, as the watch sees it: a process, however many connections and pages it has."""

    pid: int
    handle: ProcessHandle | None = None
    timers: TimerReader = field(default_factory=TimerReader)
    number: int = 0
    joined_at: int = 0
    attempts: int = 0
    not_before: int = 0  # it is not judged before this instant
    dealt_with: set[Arming] = field(default_factory=set)  # what was told and will not be again
    held: bool = False  # by a debugger, when it was to be killed last
    held_until: int = 0  # timers that were armed before get their whole timeout from then on
    pending: bool = False  # it is being dealt with: not judged again until that is settled
    early: set[Arming] = field(default_factory=set)  # whose pretimeout was told
    changed_at: int = 0  # when it was seen to have armed or disarmed a timer, a beat late at most
    deadlines: list[list[int]] = field(default_factory=list)  # when that was seen
    next_deadline: int = 0  # as it was at the last beat
    origin: Origin = field(default_factory=Origin)
    earlier: Look | None = None  # taken when its deadline came near
    program: bytes | None = None  # which it runs, see `unhang._platform.program`
    turns: Turns | None = None  # of the thread that armed its timer, as they were last
    credits: Credits = field(default_factory=Credits)  # what it gets back, with what all workers of its watch do

    def deadline_of(self, seen: Snapshot) -> int:
        """The deadline of a timer with what it gets back for time that was not its worker's."""
        return max(self.credited(seen.deadline, seen.timeout), seen.page.not_before(seen.index, seen.deadline))

    def credited(self, deadline: int, timeout: int) -> int:
        """The same, of a timer that has this deadline and this timeout."""
        armed_at = deadline - timeout
        deadline += self.credits.given(armed_at, timeout)
        if 0 < armed_at < self.held_until:
            # Nobody knows how long it was held: it may have been since the timer was armed.
            deadline = max(deadline, self.held_until + timeout)
        return deadline


class Hands(Protocol):
    """What a watch has done for it, in the loop's thread."""

    def execute(self, worker: Watched, timers: list[Expired], still: Callable[[], Outcome | None]) -> Outcome:
        """Deal with a worker whose timers have expired; or begin to, and say so later.

        ``still`` is asked first: what it says is what has become of it, if that is not None.
        """

    def look_early(self, worker: Watched) -> None:
        """A deadline of the worker is near."""

    def damaged(self, worker: Watched, why: str) -> None:
        """Told, once for each timer, that memory of the worker holds what no timer is: nobody is killed for that."""

    def prepare(self, worker: Watched, timers: list[Expired]) -> None:
        """In some milliseconds `execute` may be asked for: find out all that it does, for nothing."""

    def could_not_run(self, worker: Watched, timer: Expired) -> float:
        """For how many seconds since it was armed the timer's thread waited for a processor, if for half of them."""

    def is_held(self, worker: Watched) -> bool:
        """Whether a debugger holds the worker, or a signal that counts as one has stopped it."""

    def tell(self, event: str, worker: Watched | None, timers: list[Expired]) -> None:
        """Told what happens, with the worker and the timers it is about.

        One of ``"expired"`` (observed only), ``"pretimeout"``, ``"killed"``, ``"near miss"``, ``"held"``, ``"failed"``,
        ``"refused"``, ``"overslept"``.
        """
