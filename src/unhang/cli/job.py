"""One command under a watchdog, from its start to the end of everything that it has started."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unhang._core.clock import SystemClock
from unhang._platform import passing
from unhang._platform.children import become_subreaper, descendants, reap, signal_descendants, spawn
from unhang._platform.limits import raise_file_limit
from unhang._platform.tail import Tail
from unhang._watchdog.presence import Presence
from unhang.observe import notify
from unhang.observe.observer import Observing, start_observer
from unhang.shared_timer import Expired, SharedTimerServer

EXPIRED, CANNOT_RUN, NOT_FOUND = 124, 126, 127
# Seconds between asking what the command has left behind to end, and killing it.
_GRACE_FOR_THE_REST = 1.0
# Seconds behind the kill after which a process that is still there is reported and left.
_LAST = 5.0
# Seconds between two looks whether this process itself was stopped: a command does not pay for that.
_BEAT = 1.0
# Seconds until what a worker has armed is known here.
_NEWS = 1.5


@dataclass(frozen=True)
class Options:
    """What ``unhang run`` was told.

    Attributes:
        after: seconds that the command may take as a whole; None: as long as it likes.
        expect_timers: seconds within which a timer should be armed; None: nothing is said if none is.
        observe: tell what expires, and kill nobody.
        tail_stderr: pass the command's standard error through a pipe, and keep its end.
        notify: tell the service manager that is there how this is; False: the command does so.
        observing: what the process beside the watchdog does.
    """

    after: float | None = None
    expect_timers: float | None = None
    observe: bool = False
    tail_stderr: bool = False
    notify: bool = True
    observing: Observing = field(default_factory=Observing)


class Job:
    """A command, its watchdog, and their end.

    Args:
        command: the command and its arguments.
        options: what to do about the command.
        server: the arguments of the `SharedTimerServer`.
    """

    def __init__(self, command: Sequence[str], options: Options, server: Mapping[str, Any]) -> None:
        self._command = command
        self._options = options
        self._tail = Tail() if options.tail_stderr else None
        self._notifier = notify.from_environment(os.environ) if options.notify else None
        if self._notifier is not None:
            server = self._notifier.server_arguments(server)
        self._server = SharedTimerServer(
            on_event=self._event,
            _stderr_of=None if self._tail is None else self._tail.of,
            _awaits_viewer=options.observing.is_needed,
            **server,
        )
        self._grace = float(server.get("grace", 5.0))
        self._signal = int(server.get("signal", signal.SIGTERM)) or signal.SIGKILL
        self._killed = False
        self._passed: set[int] = set()  # signals that were meant for the command
        self._status: int | None = None
        self._pid = 0
        self._presence = Presence(SystemClock())
        # Instants of the monotonic clock, and what is done then.
        self._due = {
            self._ends: math.inf,
            self._kills: math.inf,
            self._misses_timers: math.inf,
        }

    def _event(self, event: str, pid: int | None, timers: list[Expired]) -> None:  # noqa: ARG002 - as it is called
        self._killed = self._killed or event == "killed"

    def run(self) -> int:
        """Run the command to its end; returns the exit status for the shell."""
        numbers, mask = passing.block()
        self._server.start()
        observer = None
        try:
            observer = start_observer(self._server.address, self._options.observing)
            become_subreaper()
            try:
                stderr = None if self._tail is None else self._tail.fileno()
                self._pid = spawn(list(self._command), self._environment(), mask, stderr=stderr)
            except OSError as error:
                _say(f"cannot run {self._command[0]!r}: {error.strerror}")
                return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
            if self._notifier is not None:
                self._notifier.ready()
            if self._tail is not None:
                self._tail.start()
            raise_file_limit()
            self._plan()
            while self._status is None:
                self._turn(numbers)
            if self._notifier is not None:
                self._notifier.stopping()
            self._end_the_rest(numbers)
            return self._exit_status(self._status)
        finally:
            if observer is not None:
                observer.close()
            self._server.stop()
            if self._tail is not None:
                self._tail.close()

    def _environment(self) -> dict[str, str]:
        """The command's."""
        environment = notify.for_command(os.environ, itself=not self._options.notify)
        environment["UNHANG_ADDRESS"] = self._server.address
        if self._options.observing.learn is not None:
            environment["UNHANG_LEARN"] = self._options.observing.learn
        return environment

    def _plan(self) -> None:
        now = time.monotonic()
        if self._options.after is not None:
            self._due[self._ends] = now + self._options.after
        if self._options.expect_timers is not None:
            self._due[self._misses_timers] = now + self._options.expect_timers + _NEWS

    def _turn(self, numbers: set[int]) -> None:
        """Wait for a signal or the next deadline, and act on it."""
        wait = min(min(self._due.values()) - time.monotonic(), _BEAT)
        self._presence.waits(max(0.0, wait))
        info = passing.wait(numbers, wait)
        lost = self._presence.is_back()
        self._due = {action: instant + lost for action, instant in self._due.items()}
        if info is None:
            self._reap()
            now = time.monotonic()
            for action, instant in list(self._due.items()):
                if instant <= now:
                    self._due[action] = math.inf
                    action()
        elif info.si_signo == signal.SIGCHLD:
            self._reap()
        elif self._status is None:
            self._passed.add(info.si_signo)
            passing.pass_on(info, self._pid)

    def _reap(self) -> None:
        ended = reap(self._pid)
        if self._pid in ended:
            self._status = ended[self._pid]

    def _ends(self) -> None:
        words = "it is only observed" if self._options.observe else "ending it"
        _say(f"{self._command[0]} still runs after {self._options.after:g} s: {words}")
        if self._options.observe:
            return
        self._killed = True
        signal_descendants(self._signal)
        signal_descendants(signal.SIGCONT)
        self._due[self._kills] = time.monotonic() + self._grace

    def _kills(self) -> None:
        signal_descendants(signal.SIGKILL)

    def _misses_timers(self) -> None:
        if not self._server.was_armed:
            _say(
                f"NOTHING IS WATCHED: no timer was armed within {self._options.expect_timers:g} s. Does the program "
                "call unhang.expires(), and does it get UNHANG_ADDRESS from its environment?"
            )

    def _end_the_rest(self, numbers: set[int]) -> None:
        """End what the command has left behind: nobody is there who would wait for it."""
        now = time.monotonic()
        stages = [
            (now, signal.SIGTERM),
            (now + _GRACE_FOR_THE_REST, signal.SIGKILL),
            (now + _GRACE_FOR_THE_REST + _LAST, None),
        ]
        told = False
        while (left := _children_left()) and stages:
            instant, number = stages[0]
            if time.monotonic() < instant:
                passing.wait(numbers, min(instant - time.monotonic(), 0.1))
                continue
            del stages[0]
            if number is None:
                _say(f"{left} processes that {self._command[0]} left behind do not end")
                return
            count = signal_descendants(number)
            signal_descendants(signal.SIGCONT)
            if count and not told:
                _say(f"ending {count} processes that {self._command[0]} left behind")
                told = True

    def _exit_status(self, status: int) -> int:
        # Whoever stops a job that had got over a hang has ended it, and not the hang.
        if status != 0 and self._killed and -status not in self._passed:
            return EXPIRED
        return status if status >= 0 else 128 - status


def _children_left() -> int:
    reap()
    return len(descendants())


def _say(message: str) -> None:
    logging.getLogger("unhang.run").warning(message)
