"""What can be found out about one worker in bounded time, and the class of its hang.

A watchdog asks from threads of its own, several at once. Everything about a worker is its own to decide, and may be
made to mislead, to be large, or never to come: each step has an end in time and size, and fails alone.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from unhang._core import real_time as time
from unhang._platform import pyspy
from unhang._platform.look import Look, ThreadLook, command, look, name_of
from unhang._platform.patience import within
from unhang._platform.process import ProcessHandle
from unhang._verdict.hang import classify, waits_for
from unhang._verdict.stacks import printable
from unhang._verdict.symptoms import ENOUGH_TO_STARVE, Motion, Symptoms, motion
from unhang._verdict.threads import fill, order
from unhang._watchdog import kill
from unhang._watchdog.around import Around
from unhang._watchdog.stacks import Stacks
from unhang.report import model

logger = logging.getLogger(__name__)

# A thread that runs is looked at again after so long: its time on a processor is counted some hundred times a second.
_SHORT = 0.012
_PATIENCE = 0.1
# The part of the budget that stacks leave to what is read after them.
_RESERVE = 0.1


@dataclass(frozen=True)
class Subject:
    """A worker to look at.

    Attributes:
        handle: the process. It must not be closed meanwhile.
        scope: of the expired block; ``file:line`` if it has no name.
        thread: the kernel's number of the thread that probably armed it, a hint; 0 if it is not known.
        user: the worker's user id.
        earlier: a look at it, taken up to some seconds before: a longer window.
        stack_signal: the signal for which it has a ``faulthandler``; 0 for none.
        stack_file: our descriptor of the memory that the handler writes into.
        stderr: what tells the end of its standard error, if the caller captures that.
        also: whose processes may be signalled, besides this user's.
    """

    handle: ProcessHandle
    scope: str = ""
    thread: int = 0
    user: int | None = None
    earlier: Look | None = None
    stack_signal: int = 0
    stack_file: int = -1
    stderr: Callable[[], str] | None = None
    also: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Options:
    """What to gather besides: ``native``, the calls of C code in all stacks (slower)."""

    native: bool = False


def gather(
    subject: Subject, *, gentle: bool, budget: float, began: float, options: Options | None = None
) -> model.Evidence:
    """The evidence about one worker. Never raises; may be called from several threads at once.

    Args:
        subject: the worker.
        gentle: whether it must not be disturbed: no signal, no stop. Otherwise it is about to be killed.
        budget: seconds; what is not there when they are over is left out.
        began: the monotonic instant that `Evidence.at` counts from.
        options: what to gather besides.
    """
    start = time.monotonic()
    case = _Case(subject, gentle=gentle, give_up=start + budget, options=options or Options())
    try:
        found = case.gather()
    except Exception:
        logger.exception("Error looking at pid=%s", subject.handle.pid)
        found = model.Evidence(without=("an error of unhang's own; its log has it",))
    now = time.monotonic()
    return _with_times(found, start - began, now - start)


def _with_times(found: model.Evidence, at: float, took: float) -> model.Evidence:
    return msgspec.structs.replace(found, at=round(at, 4), took=round(took, 4))


class _Case:
    """One worker, while it is looked at."""

    def __init__(self, subject: Subject, *, gentle: bool, give_up: float, options: Options) -> None:
        self._subject = subject
        self._handle = subject.handle
        self._give_up = give_up
        self._options = options
        self._gentle = gentle
        self._threads: tuple[model.Thread, ...] = ()

    def gather(self) -> model.Evidence:
        first = look(self._handle.pid, self._subject.thread)
        if first is None or not self._handle.alive():
            return model.Evidence(without=("it has ended, or may not be seen",))
        before, now = self._window(first)
        stacks = self._stacks(now, stuck=self._is_starved(before, now))
        stacks.first()
        # What writes down its own stacks has been interrupted for it: what it does then says nothing.
        told_by_itself = stacks.source == "faulthandler"
        after = now if before is not now or told_by_itself else look(self._handle.pid, self._subject.thread) or now
        around = Around(self._handle.pid, self._give_up, foreign=_is_foreign(self._subject))
        symptoms = self._decided(stacks, around, _Looks(before, now, after))
        around.look(self._subject.stderr)
        line = within(min(_PATIENCE, self._left()), functools.partial(command, self._handle.pid), "")
        if not self._handle.alive():
            return self._of_the_dead(stacks)
        hang, facts = classify(symptoms)
        return model.Evidence(
            threads=symptoms.threads,
            stacks_from=stacks.source,
            without=tuple(printable(reason) for reason in (*stacks.without, *around.without)),
            hang=hang,
            facts=tuple(printable(fact) for fact in facts),
            waits_for=waits_for(symptoms, facts) if hang is model.HangClass.NETWORK else (),
            process=_process(symptoms, now, printable(line)),
            sockets=around.sockets,
            children=around.children,
            stderr=around.stderr,
        )

    @staticmethod
    def _of_the_dead(stacks: Stacks) -> model.Evidence:
        """What it has written down itself is its own; anything else may be of whoever has its pid now."""
        without = ("it ended while it was looked at",)
        if stacks.source != "faulthandler":
            return model.Evidence(without=without)
        return model.Evidence(threads=stacks.threads, stacks_from=stacks.source, without=without)

    def _left(self) -> float:
        return max(0.0, self._give_up - time.monotonic())

    def _stacks(self, now: Look, *, stuck: bool) -> Stacks:
        """How closely it may be looked at: a process that is never signalled is not disturbed either."""
        subject = self._subject
        held = now.tracer and not pyspy.is_ours(now.tracer)
        gentle = self._gentle or bool(held) or kill.refusal_of(subject.handle, subject.also) is not None
        return Stacks(
            now,
            self._give_up - _RESERVE * self._left(),
            send=lambda number: kill.send(subject.handle, number, subject.also) is kill.Outcome.SIGNALLED,
            gentle=gentle,
            native=self._options.native,
            user=subject.user if _is_foreign(subject) else None,
            signal=(subject.stack_signal, subject.stack_file),
            hint=subject.thread,
            stuck=stuck,
        )

    def _window(self, first: Look) -> tuple[Look, Look]:
        """Two looks. A thread that runs needs two at once; for one that rests, the second may come after its stack."""
        earlier = self._subject.earlier
        if earlier is not None and earlier.pid == first.pid and earlier.instant < first.instant:
            return self._longer(earlier, first)
        if not self._runs(first):
            return first, first
        return self._longer(first, self._again(first, _SHORT))

    def _longer(self, before: Look, now: Look) -> tuple[Look, Look]:
        """The same, or later if it looks as if it got no processor: that takes some time to tell."""
        window = now.instant - before.instant
        if window < ENOUGH_TO_STARVE and self._is_starved(before, now):
            now = self._again(now, ENOUGH_TO_STARVE * 1.1 - window)
        return before, now

    def _is_starved(self, before: Look, now: Look) -> bool:
        one, other = self._main(before), self._main(now)
        if one is None or other is None or one.id != other.id:
            return False
        seen = motion(one, other, now.instant - before.instant)
        return seen.ready and seen.waited > 0.7

    def _again(self, now: Look, after: float) -> Look:
        time.sleep(min(after, self._left()))
        return look(now.pid, self._subject.thread) or now

    def _main(self, seen: Look) -> ThreadLook | None:
        return seen.thread(self._subject.thread) or seen.thread(seen.pid)

    def _runs(self, seen: Look) -> bool:
        thread = self._main(seen)
        return thread is not None and thread.state == "R"

    def _decided(self, stacks: Stacks, around: Around, looks: _Looks) -> Symptoms:
        """The symptoms, with as many more stacks as it takes to tell what a thread does."""
        while True:
            threads = order(stacks.threads, self._subject.thread, looks.now.pid, self._subject.scope)
            symptoms = looks.symptoms(fill(threads, looks.now), stacks, around)
            if not stacks.more(symptoms):
                return symptoms


@dataclass(frozen=True)
class _Looks:
    """Two looks, ``before`` and ``after``, of which one is ``now``: the one nearest to the stacks."""

    before: Look
    now: Look
    after: Look

    def symptoms(self, threads: tuple[model.Thread, ...], stacks: Stacks, around: Around) -> Symptoms:
        window = self.after.instant - self.before.instant
        relevant = self.now.thread(threads[0].id) if threads else None
        held = self.now.tracer and not pyspy.is_ours(self.now.tracer)
        return Symptoms(
            threads=threads,
            motions=self._motions(window),
            looks={thread.id: thread for thread in self.now.threads},
            window=window,
            tracer=self.now.tracer if held else 0,
            tracer_name=name_of(self.now.tracer) if held else "",
            major_faults=max(0, self.after.major_faults - self.before.major_faults),
            swapped=self.now.swapped,
            targets=around.targets(relevant),
            owners=tuple(stacks.owners),
            samples={number: tuple(samples) for number, samples in stacks.samples.items()},
            children=around.names_of_children(),
            symbols=stacks.symbols,
        )

    def _motions(self, window: float) -> dict[int, Motion]:
        afterwards = {thread.id: thread for thread in self.after.threads}
        pairs = ((thread, afterwards.get(thread.id)) for thread in self.before.threads)
        return {one.id: motion(one, other, window) for one, other in pairs if other and other.started == one.started}


def _is_foreign(subject: Subject) -> bool:
    return subject.user is not None and subject.user != os.geteuid()


def _process(symptoms: Symptoms, now: Look, line: str) -> model.Process:
    seen = symptoms.motions.values()
    return model.Process(
        command=line,
        state=now.state,
        window=round(symptoms.window, 4),
        cpu=round(sum(one.cpu for one in seen), 3),
        waited=round(max((one.waited for one in seen), default=0.0), 3),
        cpu_time=now.cpu,
        memory=now.memory,
        swapped=now.swapped,
        major_faults=symptoms.major_faults,
        threads=now.count,
        tracer=symptoms.tracer,
    )
