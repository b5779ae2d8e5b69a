"""The stacks of a worker: whom to ask, how gently, and how often."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable

import msgspec

from unhang._core import real_time as time
from unhang._platform import pyspy, source_lines, stack_signal, symbols
from unhang._platform.look import Look
from unhang._platform.patience import within
from unhang._verdict import calls, running
from unhang._verdict.hang import is_plain
from unhang._verdict.stacks import StacksError, from_faulthandler, from_pyspy, last_is_main, printable, without_native
from unhang._verdict.symptoms import Sample, Symptoms
from unhang._verdict.threads import guess_numbers, number
from unhang.report.model import Frame, Thread

_TRIES = 3
# Of a thread that runs: at first without C code, which is quicker; then with it.
_PLAIN_SAMPLES = 3
_MOST_SAMPLES = 10
_MOST_GENTLE_SAMPLES = 5
# py-spy may hang; the worker's own handler gets the rest.
_FIRST_SHARE = 0.7
_BLOCKING_SHARE = 0.6
_LEAST_TIME = 0.03
_LEAST_TIME_NATIVE = 0.1
# Stacks of C code take py-spy this part of a second, and some times as long where libraries are large.
_PATIENCE = 0.1
_FOR_SIGNAL = 0.3


class Stacks:
    """The stacks of one worker. Not thread-safe.

    Args:
        now: a look at it.
        give_up: the monotonic instant at which nothing more is tried.
        send: sends it a signal if that is allowed, and says whether it did.
        gentle: whether it must not be disturbed.
        native: whether the calls of C code are wanted in the result.
        user: run py-spy as this user; files that the stacks name are not read then, since we may read more than it.
        signal: the signal for which it has a ``faulthandler``, and our descriptor of what that writes into.
        hint: the id of a thread that runs Python code, 0 for none.
        stuck: whether it gets no processor, so that it could not be stopped for a dump either.

    Attributes:
        threads: with their stacks, in no certain order.
        source: who told them: ``py-spy``, ``faulthandler``, or empty.
        without: why something is missing.
        owners: whose the GIL was, one thread a dump, 0 for nobody's.
        samples: of each thread, by its id, one a dump.
    """

    def __init__(  # noqa: PLR0913 - each says how
        self,
        now: Look,
        give_up: float,
        *,
        send: Callable[[int], bool],
        gentle: bool,
        native: bool,
        user: int | None,
        signal: tuple[int, int],
        hint: int = 0,
        stuck: bool = False,
    ) -> None:
        self._now = now
        self._give_up = give_up
        self._send = send
        self._gentle = gentle
        self._native = native and not gentle
        self._user = user
        self._signal = signal
        self._hint = hint
        self._stuck = stuck
        self._stopped = now.state == "T"
        self._nonblocking = gentle or stuck or self._stopped or any(one.state == "D" for one in now.threads)
        self.threads: tuple[Thread, ...] = ()
        self.source = ""
        self.without: list[str] = []
        self.owners: list[int] = []
        self.samples: dict[int, list[Sample]] = {}

    def first(self) -> None:
        """Get the stacks, by py-spy or by the worker's own handler."""
        try:
            self.threads = self._by_pyspy(native=self._native, budget=_FIRST_SHARE * self._left())
            self.source = "py-spy"
        except (pyspy.PySpyError, StacksError) as error:
            self.without.append(str(error))
            self._first_by_signal()

    def _first_by_signal(self) -> None:
        if self._gentle or not self._signal[0] or self._signal[1] < 0:
            return
        try:
            self.threads = self._by_signal()
            self.source = "faulthandler"
        except (stack_signal.StackSignalError, StacksError) as error:
            self.without.append(str(error))

    def more(self, symptoms: Symptoms) -> bool:
        """Get more stacks, if they would tell more about what a thread does; False if not, or if there is no time."""
        native = self._wanted(symptoms)
        if native is None or self._left() < (_LEAST_TIME_NATIVE if native else _LEAST_TIME):
            return False
        try:
            if self.source == "faulthandler":
                self._by_signal()
            else:
                self._by_pyspy(native=native, budget=self._left())
        except (pyspy.PySpyError, StacksError, stack_signal.StackSignalError) as error:
            self.without.append(f"no further stacks: {error}")
            return False
        return True

    def _wanted(self, symptoms: Symptoms) -> bool | None:
        """Whether stacks with C code are wanted, or without; None for none."""
        if not self.source or is_plain(symptoms):
            return None
        if self.source == "py-spy" and running.wants_owner_again(symptoms):
            return False
        suspect = running.suspect(symptoms)
        if suspect:
            return self._wanted_of(suspect, symptoms)
        native = self.source == "py-spy" and not self._nonblocking and calls.wants_native(symptoms)
        sampled = any(sample.native for sample in self.samples.get(symptoms.relevant.id, ()))
        return True if native and not sampled else None

    def _wanted_of(self, suspect: int, symptoms: Symptoms) -> bool | None:
        """What is wanted of a thread that runs."""
        samples = self.samples.get(suspect, [])
        thread = symptoms.thread(suspect)
        if thread is None or running.decide(tuple(samples), thread, symbols=self.symbols) is not None:
            return None
        if len(samples) >= (_MOST_GENTLE_SAMPLES if self._gentle else _MOST_SAMPLES):
            return None
        if self._nonblocking or self.source != "py-spy" or len(samples) < _PLAIN_SAMPLES:
            return False
        return self.symbols or all(sample.above for sample in samples if sample.native)

    @functools.cached_property
    def symbols(self) -> bool:
        """Whether C code of the interpreter itself shows in stacks."""
        return within(
            min(_PATIENCE, self._left()), functools.partial(symbols.has_symbols, self._now.pid), otherwise=False
        )

    def _left(self) -> float:
        return max(0.0, self._give_up - time.monotonic())

    def _by_pyspy(self, *, native: bool, budget: float) -> tuple[Thread, ...]:
        """The threads, also put down as a sample."""
        threads = self._with_source(number(self._dump(native, time.monotonic() + budget), self._now))
        native = native and not self._nonblocking
        self.owners.append(next((thread.id for thread in threads if thread.holds_gil), 0))
        self._sample(threads, native=native)
        if self._native:
            return threads
        return tuple(msgspec.structs.replace(thread, frames=without_native(thread.frames)) for thread in threads)

    def _sample(self, threads: tuple[Thread, ...], *, native: bool) -> None:
        for thread in threads:
            sample = Sample(thread.frames, native=native, holds_gil=thread.holds_gil)
            self.samples.setdefault(thread.id, []).append(sample)

    def _dump(self, native: bool, give_up: float) -> tuple[Thread, ...]:
        for tries in range(1, _TRIES + 1):
            try:
                threads = from_pyspy(self._spy(native, give_up), self._hint)
                if tries == _TRIES or not self._nonblocking or all(thread.frames for thread in threads):
                    return threads
            except (pyspy.PySpyError, StacksError) as error:
                hopeless = isinstance(error, pyspy.PySpyError) and self._is_hopeless(error)
                if tries == _TRIES or hopeless or give_up - time.monotonic() < _LEAST_TIME:
                    raise
        raise AssertionError

    def _spy(self, native: bool, give_up: float) -> bytes:
        left = give_up - time.monotonic()
        return pyspy.dump(
            self._now.pid,
            nonblocking=self._nonblocking,
            native=native and not self._nonblocking,  # py-spy refuses to do both
            budget=left if self._nonblocking or native else _BLOCKING_SHARE * left,
            user=self._user,
            group=None if self._user is None else self._now.group,
        )

    def _is_hopeless(self, error: pyspy.PySpyError) -> bool:
        """Whether py-spy would fail again. One that could not stop the worker may do without."""
        if error.killed and not self._nonblocking:
            self._release()
            self._nonblocking = True
            return False
        return error.hopeless

    def _release(self) -> None:
        """Let a worker go on that a killed py-spy has left stopped."""
        if not self._stopped:
            self._send(signal.SIGCONT)

    def _by_signal(self) -> tuple[Thread, ...]:
        signal_number, memory = self._signal
        # One that gets no processor runs its handler when it gets some.
        budget = self._left() if self._stuck else min(_FOR_SIGNAL, self._left())
        text = stack_signal.stacks(self._now.pid, signal_number, memory, self._send, budget, starved=self._left())
        known = guess_numbers(from_faulthandler(text), self._now, self._hint, last_is_main=last_is_main(text))
        threads = self._with_source(known)
        self._sample(threads, native=False)
        return threads

    def _with_source(self, threads: tuple[Thread, ...]) -> tuple[Thread, ...]:
        if self._user is not None:
            return threads
        wanted = {(frame.file, frame.line) for thread in threads for frame in thread.frames if frame.line}
        find = functools.partial(source_lines.lines_of, wanted, source_lines.root_of(self._now.pid))
        nothing: dict[tuple[str, int], str] = {}
        lines = within(min(_PATIENCE, self._left()), find, nothing)
        return tuple(
            msgspec.structs.replace(thread, frames=tuple(_with_line(frame, lines) for frame in thread.frames))
            for thread in threads
        )


def _with_line(frame: Frame, lines: dict[tuple[str, int], str]) -> Frame:
    text = lines.get((frame.file, frame.line))
    return msgspec.structs.replace(frame, source=printable(text)) if text else frame
