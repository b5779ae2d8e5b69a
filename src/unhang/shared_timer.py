"""Shared timers: workers keep them in memory that the watchdog reads, so that arming one sends nothing.

`SharedTimerClient` is the worker's side and the default behind `unhang.expires`; `SharedTimerServer` is the watchdog
behind ``unhang run``, ``unhang serve`` and ``unhang.configure()``, and can be a thread of a program of yours.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from unhang._core import real_time as time
from unhang._core.escalation import Policy
from unhang._core.page import NEVER
from unhang._platform.children import shows_our_processes
from unhang._platform.listener import Listener
from unhang._platform.loop_thread import LoopThread
from unhang._platform.socket_directory import new_address
from unhang._platform.sweep import sweep
from unhang._platform.waiter import Waiter
from unhang._watchdog.announce import announce
from unhang._watchdog.command_report import CommandReport, Overrun
from unhang._watchdog.evidence import Options
from unhang._watchdog.hooks import Hooks, OnExpired
from unhang._watchdog.journal import NOT_OF_TIMERS, Journal
from unhang._watchdog.meter import Meter
from unhang._watchdog.reception import Reception
from unhang._watchdog.recorder import Recorder
from unhang._watchdog.response import Response
from unhang._watchdog.viewers import Viewers
from unhang._watchdog.watched import Expired, Watched
from unhang._worker.client import SharedTimerClient
from unhang._worker.endings import signal_number
from unhang.errors import NotSupportedError
from unhang.report.live import Event, Watchdog
from unhang.report.store import ReportStore

__all__ = ["Expired", "SharedTimerClient", "SharedTimerServer"]

logger = logging.getLogger("unhang.watchdog")

# Seconds that callbacks have, when the server stops, for what they have not been called with yet.
_LAST_CALLS = 1.0
# Seconds; some thirty years.
_LONGEST = 1e9


class SharedTimerServer(LoopThread):
    """A watchdog thread for workers with a `SharedTimerClient`: kills them when one of their timers expires.

    Args:
        address: the path of the socket that it listens at. Its directory must not be writable for others. Default:
            a new one in ``$XDG_RUNTIME_DIR/unhang``, or in a directory of this user's alone under the temporary one;
            where neither can be used, in a fresh directory, which `start` makes and `stop` removes.
        max_interval: seconds for which one turn of the loop waits at most; a worker is killed at its deadline
            whatever this is.
        daemon: whether the thread lets the process end without it.
        observe: tell what expires, and kill nobody.
        signal: the signal that asks a hung worker to end, by name or number; ``"none"``: SIGKILL at once.
        grace: seconds from that signal to SIGKILL.
        tree: whether what the worker has started is ended with it.
        evidence: seconds that gathering evidence may take between the deadline and that signal; mostly some hundredths
            are enough. 0: none is gathered, and the signal is sent at the deadline.
        pretimeout: seconds before a deadline at which evidence is recorded already, without disturbing the worker; 0:
            not at all. A timer may say otherwise for these three: see `unhang.expires`.
        native: whether the stacks in reports have C functions too, which takes longer.
        report_dir: where reports are kept, as JSON; None: nowhere. The last 50 are, and 64 MiB.
        on_expired: called with each report (`unhang.report.model.Report`, frozen): when the evidence is there, before
            anybody is killed, and again when more is known; the last one is ``complete``. In a thread of its own, so
            that it delays nothing; what it raises is logged. When 64 reports wait for it, more are dropped.
        spare_stopped: spare a worker as long as SIGSTOP or Ctrl-Z has stopped it, as one in a debugger. For a
            watchdog that does not stop with its workers' terminal.
        users: uids of other users whose workers are watched, and killed; for root alone. Default: only this user's.
        on_event: told what happens, in the watchdog's thread, so be quick; what it raises is logged. Called with
            ``"killed"`` (the first signal was sent), ``"ended"`` (it is dead), ``"unkillable"`` (it is not, some
            seconds behind SIGKILL), ``"expired"`` (when nobody is killed for it), ``"pretimeout"``, ``"near miss"``,
            ``"held"`` (by a debugger, or stopped), ``"refused"``, ``"failed"``, ``"died"`` (not by us: in a
            block, or abnormally outside of one, and then the list of timers is empty) or ``"overslept"``, the pid, or
            None, and the timers, the earliest first.
        observers: each is called with every event (`unhang.report.live.Event`, frozen), workers that come and go
            included, in the watchdog's thread, so be quick; what they raise is logged.
        listener: a socket (AF_UNIX, SOCK_SEQPACKET) that listens at ``address`` already, as a descriptor; it is
            taken over.

    Raises:
        AddressError: (a ValueError) the address is not safe, or taken.
        NotSupportedError: the system lacks what this needs, or ``users`` is asked of somebody other than root.

    A worker whose timer has expired is looked at, asked to end, and killed with SIGKILL if it does not; it is spared if
    its block ends meanwhile, before it is asked. It never signals itself, its ancestors, its process group, or a
    process of a user that it does not serve, and spares a worker while a debugger holds it. Who a worker is, the kernel
    says; a worker can arm timers for itself alone. `start` and `stop` may be called from any thread, not from several
    at once.
    """

    def __init__(  # noqa: PLR0913 - options, each with a default
        self,
        address: str | None = None,
        max_interval: float = 10.0,
        daemon: bool = True,
        *,
        observe: bool = False,
        signal: int | str = "SIGTERM",
        grace: float = 5.0,
        tree: bool = False,
        evidence: float = 2.0,
        pretimeout: float = 0.0,
        native: bool = False,
        report_dir: str | None = None,
        on_expired: OnExpired | Iterable[OnExpired] = (),
        spare_stopped: bool = False,
        users: Iterable[int] = (),
        on_event: Callable[[str, int | None, list[Expired]], None] | None = None,
        observers: Iterable[Callable[[Event], None]] = (),
        listener: int | None = None,
        _stderr_of: Callable[[int], str] | None = None,
        _expects_exit: Callable[[str], bool] | None = None,
        _awaits_viewer: bool = False,
        _on_turn: Callable[[SharedTimerServer], None] | None = None,
    ) -> None:
        super().__init__(max_interval, daemon)
        others = frozenset(users) - {os.geteuid()}
        if others and os.geteuid() != 0:
            raise NotSupportedError("a watchdog for other users", "only root may kill their workers")
        if not hasattr(os, "memfd_create"):
            raise NotSupportedError("SharedTimerServer", "no memfd_create(); use FileTimerServer or LocalTimerServer")
        if not shows_our_processes():
            raise NotSupportedError(
                "a watchdog",
                "/proc is missing, or shows the processes of another pid namespace; mount it here, as `unshare "
                "--mount-proc` and every container do",
            )
        self.address = address or new_address("watchdog")
        self._sweeps = not address
        self._users = others
        self._observe = observe
        self._policy = Policy(signal_number(signal) or None, _time(grace, "grace"), tree, _time(evidence, "evidence"))
        self._policy = replace(self._policy, pretimeout=_time(pretimeout, "pretimeout"))
        self._options = Options(native=native)
        self._report_dir = report_dir
        self._on_expired = (on_expired,) if callable(on_expired) else tuple(on_expired)
        self._stderr_of = _stderr_of
        self._expects_exit = _expects_exit
        self._on_turn = _on_turn
        self._spare_stopped = spare_stopped
        self._on_event = on_event
        self._observers = tuple(observers)
        self._awaits_viewer = _awaits_viewer
        self._listener_fd = listener
        self._reception: Reception | None = None
        self._meter = Meter()

    def start(self) -> None:
        """Listen, and start the watchdog thread; does nothing if it runs. May follow `stop`."""
        if self._is_running():
            logger.info("SharedTimerServer is running already")
            return
        if self._reception is None:
            self._open()
        self._start_thread(address=self.address)

    def _open(self) -> None:
        fd, self._listener_fd = self._listener_fd, None
        if self._sweeps or fd is not None:
            self._sweeps = False
            sweep()
        listener = Listener(self.address, 0o666 if self._users else 0o600, fd)
        self._waiter = Waiter()
        self._hooks = Hooks(self._on_expired)
        self._journal = Journal(self._observers)
        self._meter = Meter()
        self._response = Response(
            self._waiter,
            self._policy,
            self._recorder(),
            self._tell,
            users=self._users,
            spare_stopped=self._spare_stopped,
            options=self._options,
            stderr_of=self._stderr_of,
            expects_exit=self._expects_exit,
        )
        served = self._users | {os.geteuid()}
        viewers = Viewers(self._watchdog, self._journal, self._response.ask, awaited=self._awaits_viewer)
        self._reception = Reception(listener, self._waiter, self._response, viewers, served, observe=self._observe)
        self._journal.add("started", detail=self.address)

    def _recorder(self) -> Recorder:
        from unhang import __version__

        directory = self._report_dir
        return Recorder(None if directory is None else lambda: ReportStore(directory), self._hooks, __version__)

    def stop(self) -> None:
        """Stop the watchdog thread, wait for it, and remove the socket. May be called twice.

        Workers go on, unwatched; they find a new watchdog at the same address. One that was asked to end already is
        killed now, since nobody will do it later.
        """
        self._stop_signaled = True
        reception, self._reception = self._reception, None
        if reception is None:
            return
        self._waiter.wake()
        self._join_thread()
        self._response.close()
        reception.close()
        self._journal.add("stopped", detail=self.address)
        self._hooks.close(_LAST_CALLS)

    @property
    def workers(self) -> int:
        """How many workers are connected."""
        return 0 if self._reception is None else len(self._reception)

    @property
    def in_blocks(self) -> int:
        """How many workers have an armed timer; known a second later at most."""
        workers = () if self._reception is None else self._response.watch.workers
        return sum(0 < worker.next_deadline < NEVER for worker in workers)

    @property
    def was_armed(self) -> bool:
        """Whether any worker has ever armed a timer; known a second later at most."""
        return self._reception is not None and self._response.watch.was_armed

    def _report_command(self, overrun: Overrun, done: Callable[[], None]) -> CommandReport | None:
        """Begin to report a command whose budget is over; None where no evidence is wanted."""
        return self._response.report_command(overrun, done) if self._policy.evidence else None

    def _run_watchdog(self) -> None:
        """One turn of the loop."""
        reception = self._reception
        if reception is None:
            return
        self._waiter.wait(min(self._response.wait_time(), self._max_interval), self._response.rehearse)
        began = time.monotonic()
        if self._response.turn():
            reception.tidy()
        self._meter.turned(began, time.monotonic())
        if self._on_turn is not None:
            self._on_turn(self)

    def _watchdog(self) -> Watchdog:
        """As viewers see it."""
        from unhang import __version__

        reception, meter = self._reception, self._meter
        return Watchdog(
            pid=os.getpid(),
            version=__version__,
            host=socket.gethostname(),
            address=self.address,
            started=meter.started,
            looked=meter.looked,
            turns=meter.turns,
            busy=time.thread_time(),
            longest=meter.longest,
            overslept=meter.overslept,
            overslept_time=meter.overslept_time,
            dropped={} if reception is None else dict(reception.limits_met.counts),
            workers=self.workers,
            observe=self._observe,
        )

    def _tell(self, event: str, worker: Watched | None, timers: list[Expired], detail: str = "", **more: Any) -> None:
        written = self._journal.add(event, worker, timers, detail=detail, **more)
        if event == "overslept":
            self._meter.overslept += 1
            self._meter.overslept_time += timers[0].late
        announce(event, worker, timers, detail, written)
        if self._on_event is None or event in NOT_OF_TIMERS:
            return
        try:
            self._on_event(event, None if worker is None else worker.pid, timers)
        except Exception:
            logger.exception("Error in on_event(%r)", event)


def _time(seconds: float, name: str) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {type(seconds).__name__}")
    if not 0 <= seconds < _LONGEST:
        raise ValueError(f"{name} is a number of seconds from 0 on, not {seconds!r}")
    return float(seconds)
