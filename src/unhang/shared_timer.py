"""Shared timers: workers keep them in memory that the watchdog reads, so that arming one sends nothing.

`SharedTimerClient` is the worker's side and the default behind `unhang.expires`; `SharedTimerServer` is the watchdog
behind ``unhang run``, ``unhang serve`` and ``unhang.configure()``, and can be a thread of a program of yours.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
from collections.abc import Callable, Iterable

from unhang._platform.address import private_directory
from unhang._platform.listener import Listener
from unhang._platform.loop_thread import LoopThread
from unhang._platform.waiter import Waiter
from unhang._watchdog.kill import Outcome, send
from unhang._watchdog.page_watch import Expired, PageWatch, Watched
from unhang._watchdog.reception import Reception
from unhang._worker.client import SharedTimerClient
from unhang.errors import NotSupportedError

__all__ = ["Expired", "SharedTimerClient", "SharedTimerServer"]

logger = logging.getLogger("unhang.watchdog")


class SharedTimerServer(LoopThread):
    """A watchdog thread for workers with a `SharedTimerClient`: kills them when one of their timers expires.

    Args:
        address: the path of the socket that it listens at. Its directory must not be writable for others. Default:
            a new one in ``$XDG_RUNTIME_DIR/unhang``, or in a directory of this user's alone under the temporary one.
        max_interval: seconds for which one turn of the loop waits at most; a worker is killed at its deadline
            whatever this is.
        daemon: whether the thread lets the process end without it.
        observe: tell what expires, and kill nobody.
        spare_stopped: spare a worker as long as SIGSTOP or Ctrl-Z has stopped it, as one in a debugger. For a
            watchdog that does not stop with its workers' terminal.
        users: uids of other users whose workers are watched, and killed; for root alone. Default: only this user's.
        on_event: told what happens, in the watchdog's thread, so be quick; what it raises is logged. Called with
            ``"killed"``, ``"expired"`` (when nobody is killed for it), ``"near miss"``, ``"held"`` (by a debugger, or
            stopped), ``"refused"``, ``"failed"`` or ``"overslept"``, the pid, or None, and the timers, the earliest
            first.
        listener: a socket (AF_UNIX, SOCK_SEQPACKET) that listens at ``address`` already, as a descriptor; it is
            taken over.

    Raises:
        AddressError: (a ValueError) the address is not safe, or taken.
        NotSupportedError: the system lacks what this needs, or ``users`` is asked of somebody other than root.

    It never signals itself, its ancestors, its process group, or a process of a user that it does not serve, and
    spares a worker while a debugger holds it. Who a worker is, the kernel says; a worker can arm timers for itself
    alone. `start` and `stop` may be called from any thread, not from several at once.
    """

    def __init__(  # noqa: PLR0913 - options, each with a default
        self,
        address: str | None = None,
        max_interval: float = 10.0,
        daemon: bool = True,
        *,
        observe: bool = False,
        spare_stopped: bool = False,
        users: Iterable[int] = (),
        on_event: Callable[[str, int | None, list[Expired]], None] | None = None,
        listener: int | None = None,
    ) -> None:
        super().__init__(max_interval, daemon)
        others = frozenset(users) - {os.geteuid()}
        if others and os.geteuid() != 0:
            raise NotSupportedError("a watchdog for other users", "only root may kill their workers")
        if not hasattr(os, "memfd_create"):
            raise NotSupportedError("SharedTimerServer", "no memfd_create(); use FileTimerServer or LocalTimerServer")
        self.address = address or _new_address()
        self._users = others
        self._observe = observe
        self._spare_stopped = spare_stopped
        self._on_event = on_event
        self._listener_fd = listener
        self._reception: Reception | None = None

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
        listener = Listener(self.address, 0o666 if self._users else 0o600, fd)
        self._waiter = Waiter()
        self._watch = PageWatch(self._execute, self._tell)
        served = self._users | {os.geteuid()}
        self._reception = Reception(listener, self._waiter, self._watch, served, observe=self._observe)

    def stop(self) -> None:
        """Stop the watchdog thread, wait for it, and remove the socket. May be called twice.

        Workers go on, unwatched; they find a new watchdog at the same address.
        """
        self._stop_signaled = True
        reception, self._reception = self._reception, None
        if reception is None:
            return
        self._waiter.wake()
        self._join_thread()
        reception.close()

    @property
    def workers(self) -> int:
        """How many workers are connected."""
        return 0 if self._reception is None else len(self._reception)

    @property
    def was_armed(self) -> bool:
        """Whether any worker has ever armed a timer; known a second later at most."""
        return self._reception is not None and self._watch.was_armed

    def _run_watchdog(self) -> None:
        """One turn of the loop."""
        reception = self._reception
        if reception is None:
            return
        self._waiter.wait(min(self._watch.wait_time(), self._max_interval))
        if self._watch.turn():
            reception.tidy()

    def _execute(self, worker: Watched, timers: list[Expired], still: Callable[[], bool]) -> Outcome:  # noqa: ARG002
        if worker.handle is None:
            return Outcome.GONE
        return send(worker.handle, signal.SIGKILL, self._users, still, spare_stopped=self._spare_stopped)

    def _tell(self, event: str, worker: Watched | None, timers: list[Expired]) -> None:
        logger.log(_LEVELS.get(event, logging.ERROR), "%s", _line(event, worker, timers))
        if self._on_event is None:
            return
        try:
            self._on_event(event, None if worker is None else worker.pid, timers)
        except Exception:
            logger.exception("Error in on_event(%r)", event)


_LEVELS = {"near miss": logging.WARNING, "overslept": logging.WARNING, "held": logging.WARNING}
_WORDS = {
    "killed": "killed",
    "expired": "it is only observed",
    "near miss": "left its block just before the kill, and is spared",
    "held": "spared while a debugger holds it, or a signal has stopped it",
    "refused": "not killed: it is protected, see above",
    "failed": "could not be killed yet",
}


def _line(event: str, worker: Watched | None, timers: list[Expired]) -> str:
    first = timers[0]
    if worker is None:
        return f"the watchdog overslept: all deadlines are given {first.late:.1f} s back"
    others = f" and {len(timers) - 1} more" if len(timers) > 1 else ""
    return (
        f"worker {worker.pid} is still in {first.scope!r}{others} after {first.running:.3g} s "
        f"(timeout {first.after:g} s): {_WORDS[event]}"
    )


def _new_address() -> str:
    return f"{private_directory()}/watchdog-{os.getpid()}-{secrets.token_hex(4)}.sock"
