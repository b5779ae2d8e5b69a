"""One command under a watchdog, from its start to the end of everything that it has started."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unhang._core.clock import SystemClock
from unhang._core.credits import Credits
from unhang._platform import exits, passing
from unhang._platform.children import become_subreaper, own_children, reap, spawn
from unhang._platform.descendants import kill_all, running, send_all
from unhang._platform.job_control import JobControl
from unhang._platform.limits import raise_file_limit
from unhang._platform.tail import Tail
from unhang._watchdog.command_report import CommandReport, Member, Overrun
from unhang._watchdog.presence import Presence
from unhang.cli.requested_end import RequestedEnd
from unhang.observe import notify
from unhang.observe.observer import Observing, start_observer
from unhang.report import words
from unhang.shared_timer import Expired, SharedTimerServer

EXPIRED, CANNOT_RUN, NOT_FOUND = 124, 126, 127
# Seconds between asking what the command has left running to end, and killing it.
_GRACE_FOR_THE_REST = 1.0
# Seconds for which it is killed again and again, before it is reported and left.
_LAST = 5.0
# Seconds between two looks whether this process itself was stopped: a command does not pay for that.
_BEAT = 1.0
# The same while the terminal has stopped the command, which is continued in the foreground.
_BEAT_IF_STOPPED = 0.2
# Seconds until what a worker has armed is known here.
_NEWS = 1.5
# Seconds that keeping and printing a report may take.
_REPORTING = 2.0
# What the watchdog calls it when the time of a timer is over.
_EXPIRIES = {"killed", "expired", "near miss", "refused", "failed", "unkillable"}
_WHY_STOPPED = {signal.SIGTTIN: "has read from its terminal", signal.SIGTTOU: "has used its terminal"}


@dataclass(frozen=True)
class Options:
    """What ``unhang run`` was asked to do.

    Attributes:
        after: seconds that the command may take as a whole; None: as long as it likes.
        expect_timers: seconds within which a timer should be armed; None: nothing is said if none is.
        observe: report what expires, and kill nobody.
        fail_on_expiry: end with 124 if anything has expired, whatever the command's status is.
        tail_stderr: pass the command's standard error through a pipe, and keep its end.
        notify: report this watchdog to the service manager that is there; False: the command does so.
        observing: what the process beside the watchdog does.
    """

    after: float | None = None
    expect_timers: float | None = None
    observe: bool = False
    fail_on_expiry: bool = False
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
        self._requested = RequestedEnd()
        self._server = SharedTimerServer(
            on_event=self._event,
            _stderr_of=None if self._tail is None else self._tail.of,
            _expects_exit=self._requested.explains,
            _awaits_viewer=options.observing.is_needed,
            **server,
        )
        self._grace = float(server.get("grace", 5.0))
        self._evidence = float(server.get("evidence", 2.0))
        self._signal = signal.Signals(int(server.get("signal", signal.SIGTERM)) or signal.SIGKILL)
        self._killed = False  # a worker
        self._is_ended = False  # the command, since its budget was over
        self._expired = False
        self._status: int | None = None
        self._pid = 0
        self._control: JobControl | None = None
        self._report: CommandReport | None = None
        self._is_reported = threading.Event()
        self._steps: list[tuple[float, str]] = []  # what was done to the command
        self._presence = Presence(SystemClock())
        self._credits = Credits()
        # What is done in some time: since when that runs, and until when; monotonic seconds.
        self._due: dict[Callable[[], None], tuple[float, float]] = {}

    def _event(self, event: str, pid: int | None, timers: list[Expired]) -> None:  # noqa: ARG002 - as it is called
        self._killed = self._killed or event == "killed"
        self._expired = self._expired or event in _EXPIRIES

    def run(self) -> int:
        """Run the command to its end; returns the exit status for the shell."""
        numbers, mask = passing.block()
        self._server.start()
        observer = None
        try:
            observer = start_observer(self._server.address, self._options.observing)
            become_subreaper()
            failed = self._start(mask)
            if failed is not None:
                return failed
            while self._status is None:
                self._turn(numbers)
            if self._notifier is not None:
                self._notifier.stopping()
            self._end_the_rest(numbers)
            self._complete_report(self._status)
        finally:
            if observer is not None:
                observer.close()
            self._server.stop()
            if self._tail is not None:
                self._tail.close()
        # Now all events are known.
        return self._exit_status(self._status)

    def _start(self, mask: set[signal.Signals]) -> int | None:
        """Start the command; returns the exit status if that cannot be done."""
        try:
            stderr = None if self._tail is None else self._tail.fileno()
            self._pid = spawn(list(self._command), self._environment(), mask, stderr=stderr)
        except OSError as error:
            _say(f"cannot run {self._command[0]!r}: {error.strerror}")
            return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        self._control = JobControl(self._pid)
        if self._notifier is not None:
            self._notifier.ready()
        if self._tail is not None:
            self._tail.start()
        raise_file_limit()
        if self._options.after is not None:
            self._do_in(self._options.after, self._runs_over)
        if self._options.expect_timers is not None:
            self._do_in(self._options.expect_timers + _NEWS, self._misses_timers)
        return None

    def _do_in(self, seconds: float, action: Callable[[], None]) -> None:
        now = time.monotonic()
        self._due[action] = (now, now + seconds)

    def _due_at(self, action: Callable[[], None]) -> float:
        """When that is done, with what its time gets back."""
        return self._credits.moved(*self._due[action]) if action in self._due else math.inf

    def _environment(self) -> dict[str, str]:
        """The command's."""
        environment = notify.for_command(os.environ, itself=not self._options.notify)
        environment["UNHANG_ADDRESS"] = self._server.address
        if self._options.observing.learn is not None:
            environment["UNHANG_LEARN"] = self._options.observing.learn
        return environment

    def _turn(self, numbers: set[int]) -> None:
        """Wait for a signal or the next deadline, and act on it."""
        assert self._control is not None  # noqa: S101 - for the type checker: the command runs
        beat = _BEAT if self._control.stopped_by is None else _BEAT_IF_STOPPED
        next_one = min(map(self._due_at, self._due), default=math.inf)
        wait = min(next_one - time.monotonic(), beat)
        self._presence.waits(max(0.0, wait))
        info = passing.wait(numbers, wait)
        if lost := self._presence.is_back():
            self._credits.add(round(time.monotonic() * 1e9), round(lost * 1e9))
        if info is not None and info.si_signo != signal.SIGCHLD:
            self._pass_on(info, self._control)
        self._reap()
        if self._status is None:
            self._control.turn()
            self._act()

    def _act(self) -> None:
        """Do what is due."""
        if self._is_reported.is_set() and not self._options.observe:
            self._is_reported.clear()
            if self._is_asked_to_end in self._due:  # it was not too late for that
                self._do_in(0.0, self._is_asked_to_end)
        now = time.monotonic()
        for action in [action for action in self._due if self._due_at(action) <= now]:
            del self._due[action]
            action()

    def _pass_on(self, info: signal.struct_siginfo, control: JobControl) -> None:
        self._requested.add(info.si_signo)
        passing.pass_on(info, self._pid)
        was_stopped = control.stopped_by
        control.got(info.si_signo)
        if control.stopped_by is not None and was_stopped is None:
            number = control.stopped_by
            _say(
                f"{self._command[0]} is in the background, {_WHY_STOPPED[number]}, and was stopped for that by "
                f"{number.name}; `fg` continues it, and its timers go on"
            )

    def _reap(self) -> None:
        ended = reap(self._pid)
        if self._pid in ended:
            self._status = ended[self._pid]

    def _runs_over(self) -> None:
        """The budget of the command is over: report it, and end it when the report is there."""
        self._expired = True
        members = [(each.handle.pid != self._pid, each) for each in running()]
        members.sort(key=lambda pair: pair[0])
        self._report = self._server._report_command(
            Overrun(
                command=self._command,
                budget=self._options.after or 0.0,
                members=[Member(each.handle, each.parent) for _, each in members],
                is_observed=self._options.observe,
                next_step=self._next_step(),
            ),
            self._reported,
        )
        if self._report is None:
            after = words.seconds(self._options.after or 0.0)
            _say(f"{self._command[0]} still runs after {after}: {self._next_step()}")
        if not self._options.observe:
            # It does not wait for ever for a report that cannot be made.
            patience = 0.0 if self._report is None else self._evidence + _REPORTING
            self._do_in(patience, self._is_asked_to_end)

    def _reported(self) -> None:
        """The report is there. Called in its thread; wakes the one that waits for signals."""
        self._is_reported.set()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGCHLD)

    def _next_step(self) -> str:
        if self._options.observe:
            return "it is only observed"
        whom = "for it and all that it has started"
        if self._signal is signal.SIGKILL:
            return f"SIGKILL now, {whom}"
        return f"{self._signal.name} now, SIGKILL {words.seconds(self._grace)} later, {whom}"

    def _is_asked_to_end(self) -> None:
        self._is_ended = self._requested.by_us = True
        if self._signal is signal.SIGKILL:
            self._is_killed()
            return
        self._steps.append((time.monotonic(), self._signal.name))
        send_all(self._signal, signal.SIGCONT)
        self._do_in(self._grace, self._is_killed)

    def _is_killed(self) -> None:
        self._steps.append((time.monotonic(), "SIGKILL"))
        if self._signal is not signal.SIGKILL:
            _say(f"{self._command[0]} did not end within {words.seconds(self._grace)} of {self._signal.name}: SIGKILL")
        kill_all(self._reap)

    def _misses_timers(self) -> None:
        if not self._server.was_armed:
            _say(
                f"NOTHING IS WATCHED: no timer was armed within {self._options.expect_timers:g} s. Does the program "
                "call unhang.expires(), and does it get UNHANG_ADDRESS from its environment?"
            )

    def _end_the_rest(self, numbers: set[int]) -> None:
        """End what the command has left running: nothing else will wait for it."""
        self._reap()
        if not own_children():
            return
        self._requested.by_us = True
        # What was asked to end with the command still has its grace.
        kill_at = self._due_at(self._is_killed)
        if not self._steps:
            kill_at = time.monotonic() + _GRACE_FOR_THE_REST
            if count := send_all(signal.SIGTERM, signal.SIGCONT):
                _say(f"ending {_processes(count)} that {self._command[0]} left running")
        while own_children() and 0 < (left := kill_at - time.monotonic()) < math.inf:
            passing.wait(numbers, min(left, 0.1))
            self._reap()
        if own_children():
            self._steps.append((time.monotonic(), "SIGKILL"))
            if surviving := kill_all(self._reap, within=_LAST):
                _say(f"{_processes(surviving)} that {self._command[0]} left running cannot be killed")

    def _complete_report(self, status: int) -> None:
        if self._report is None or self._options.observe:
            return
        if not self._steps:
            self._report.cancel()
            _say(f"{self._command[0]} ended by itself, just before the first signal: spared")
        exit_ = f"exit code {status}" if status >= 0 else exits.text(-status)
        self._report.finish("killed" if self._steps else "spared", self._steps, exit_)

    def _exit_status(self, status: int) -> int:
        # The command may have ended with 0 for SIGTERM, or since its children did.
        if self._is_ended or (self._options.fail_on_expiry and self._expired):
            return EXPIRED
        # Whoever stops a job that had got over a hang has ended it, and not the hang.
        if status != 0 and self._killed and not self._requested.has(-status):
            return EXPIRED
        return status if status >= 0 else 128 - status


def _processes(count: int) -> str:
    return words.number(count, "process", "processes")


def _say(message: str) -> None:
    logging.getLogger("unhang.run").warning(message)
