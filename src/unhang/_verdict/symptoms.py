"""The facts that the class of a hang follows from, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from unhang._platform.look import ThreadLook
from unhang._platform.waits import Target
from unhang._verdict.stacks import native_above, without_native
from unhang.report.model import Frame, Thread

# In a shorter window a thread that waits for a processor may just have had bad luck.
ENOUGH_TO_STARVE = 0.25
_A_MOMENT = 0.002
_NOT_ON = frozenset("SDItTIX")


@dataclass(frozen=True, slots=True)
class Motion:
    """What a thread did between two looks.

    Attributes:
        states: the kernel's letters, then and afterwards.
        cpu: the share of the time that it was on a processor.
        waited: the share of the time that it was ready to run and was not run.
        turns: how often it was given a processor, -1 if that is not known.
        stayed: whether it was in the same system call both times.
        rests: whether it was blocked both times, and hardly ran between.
    """

    states: tuple[str, str] = ("", "")
    cpu: float = 0.0
    waited: float = 0.0
    turns: int = -1
    stayed: bool = False
    rests: bool = False

    @property
    def ready(self) -> bool:
        """Whether it was on a processor, or ready for one, both times."""
        return self.states == ("R", "R")


def motion(before: ThreadLook, after: ThreadLook, window: float) -> Motion:
    """What a thread did between two looks that are ``window`` seconds apart."""
    if window <= 0:
        return Motion((before.state, after.state), rests={before.state, after.state} <= _NOT_ON)
    cpu = min(1.0, max(0.0, after.cpu - before.cpu) / window)
    waited = min(1.0, max(0.0, after.delayed - before.delayed) / window)
    turns = after.turns - before.turns if before.turns >= 0 else -1
    if before.state == after.state == "R" and (turns == 0 or 0 <= before.sleeps == after.sleeps):
        # Its wait is counted when it ends. One that never slept has waited whenever it was not on a processor.
        waited = max(waited, 1.0 - cpu)
    same = before.arguments == after.arguments and after.syscall in (before.syscall, "restart_syscall")
    stayed = before.syscall not in ("", "running") and same
    # A debugger that stops it for a moment makes it run for a moment.
    rests = {before.state, after.state} <= _NOT_ON and cpu * window < _A_MOMENT + 0.05 * window
    return Motion((before.state, after.state), cpu, waited, turns, stayed, rests)


@dataclass(frozen=True, slots=True)
class Sample:
    """The stack of one thread at one moment.

    Attributes:
        frames: the innermost first.
        native: whether calls of C code are among them.
        holds_gil: whether it held the GIL; None if that is not known.
    """

    frames: tuple[Frame, ...]
    native: bool = False
    holds_gil: bool | None = None

    @property
    def place(self) -> tuple[str, str, int] | None:
        """The innermost line of Python code."""
        frame = next(iter(without_native(self.frames)), None)
        return None if frame is None else (frame.file, frame.function, frame.line)

    @property
    def above(self) -> tuple[Frame, ...]:
        """The calls of C code above it."""
        return native_above(self.frames)


@dataclass(frozen=True, slots=True)
class Symptoms:
    """What is known about one worker.

    Attributes:
        threads: the relevant one first.
        motions: by the thread's id.
        looks: the threads as procfs shows them, by id.
        window: seconds between the two looks.
        tracer: the pid of the debugger that holds it, 0 for none or for a tool of ours.
        tracer_name: what it is called.
        major_faults: pages read from disk in the window.
        swapped: bytes of swapped memory.
        targets: what the relevant thread waits for; None if that is not known.
        owners: whose the GIL was, one thread a dump, 0 for nobody's.
        samples: of each thread that was sampled, by its id, one a dump.
        children: names and pids of its child processes.
        symbols: whether the names of the interpreter's C functions can be found, without which C code of its own does
            not show in a stack.
    """

    threads: tuple[Thread, ...] = ()
    motions: dict[int, Motion] = field(default_factory=dict)
    looks: dict[int, ThreadLook] = field(default_factory=dict)
    window: float = 0.0
    tracer: int = 0
    tracer_name: str = ""
    major_faults: int = 0
    swapped: int = 0
    targets: tuple[Target, ...] | None = None
    owners: tuple[int, ...] = ()
    samples: dict[int, tuple[Sample, ...]] = field(default_factory=dict)
    children: tuple[str, ...] = ()
    symbols: bool = False

    @property
    def relevant(self) -> Thread:
        """The thread whose hang it is."""
        return self.threads[0] if self.threads else Thread()

    @property
    def its_look(self) -> ThreadLook:
        """The relevant thread as procfs shows it."""
        return self.looks.get(self.relevant.id, ThreadLook(self.relevant.id))

    @property
    def its_motion(self) -> Motion:
        """What the relevant thread did."""
        return self.motions.get(self.relevant.id, Motion())

    def thread(self, number: int) -> Thread | None:
        """The thread with this id."""
        return next((thread for thread in self.threads if thread.id == number), None)


def is_running(seen: Motion) -> bool:
    """Whether a thread spends its time on a processor, as far as it gets one."""
    return seen.cpu >= 0.5 or seen.ready
