"""What systemd, or whoever else speaks its notify protocol, is told of a watchdog that is a service.

The protocol is that of sd_notify(3) and sd_watchdog_enabled(3): datagrams of ``NAME=value`` lines to the socket in
``NOTIFY_SOCKET``. A command under ``unhang run`` is not told of that socket, unless it is to speak for itself: systemd
listens to a service's main process alone, which is the watchdog's.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Protocol

from unhang._core.texts import escaped
from unhang._platform.process import me
from unhang.report.live import Event

logger = logging.getLogger("unhang.observe")

_SOCKET, _USEC, _PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
# systemd's word for the process that it has started.
_STARTED = "SYSTEMD_EXEC_PID"
# So many signs of life in the time after which the service counts as hung; systemd recommends two.
_SIGNS = 3
# Seconds between two lines about the state.
_STATUS_PAUSE = 2.0
_LONGEST_STATUS = 300
_INCIDENTS = {"report", "killed", "expired", "unkillable", "died"}


class Watching(Protocol):
    """A watchdog, as far as the state's line has it."""

    @property
    def workers(self) -> int:
        """How many are connected."""

    @property
    def in_blocks(self) -> int:
        """How many of them are in a block."""


def for_command(environment: Mapping[str, str], *, itself: bool) -> dict[str, str]:
    """The environment of a command under ``unhang run``.

    Args:
        environment: that of ``unhang run``.
        itself: whether the command speaks to systemd itself. It then finds the socket, and that it has to give signs
            of life, whatever its pid is.
    """
    taken = {_PID} if itself else {_SOCKET, _USEC, _PID}
    return {name: value for name, value in environment.items() if name not in taken}


def from_environment(environment: Mapping[str, str]) -> Notifier | None:
    """The notifier for this process; None if nobody wants to be told."""
    address = environment.get(_SOCKET, "")
    if not address:
        return None
    if address[0] not in "/@":
        logger.warning("NOTIFY_SOCKET is %r, which is no path of a socket: nobody is told how this service is", address)
        return None
    return Notifier(address, _timeout(environment), _main_pid(environment))


def _timeout(environment: Mapping[str, str]) -> float:
    """Seconds without a sign of life after which this process counts as hung."""
    if environment.get(_PID, str(os.getpid())) != str(os.getpid()):
        return math.inf
    microseconds = environment.get(_USEC, "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else math.inf


def _main_pid(environment: Mapping[str, str]) -> int | None:
    """Our pid, if systemd has started somebody else, who has started us: in another pid namespace it means nothing."""
    started = environment.get(_STARTED, "")
    return os.getpid() if started.isdecimal() and int(started) in me(fresh=True).ancestors else None


class Notifier:
    """Tells a service manager that a watchdog is ready, that its loop turns, and how it is. Never waits or raises.

    An observer of a watchdog (it remembers the last incident), and called behind each turn of its loop.

    Args:
        address: the path of a socket; with ``@`` in front, an abstract one.
        timeout: seconds without a sign of life after which the service counts as hung; infinite: it never does.
        main_pid: what is to be taken for the service's main process; None: whoever was started.
    """

    def __init__(self, address: str, timeout: float = math.inf, main_pid: int | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._pause = timeout / _SIGNS
        self._ready = ["READY=1"] if main_pid is None else ["READY=1", f"MAINPID={main_pid}"]
        self._must_be_ready = False
        self._last = ""
        self._status = ""
        self._sign_at = 0.0 if self._pause < math.inf else math.inf
        self._status_at = 0.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def server_arguments(self, others: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a `SharedTimerServer` whose notifier this is, besides others."""
        return {
            **others,
            "observers": [*others.get("observers", ()), self],
            "max_interval": min(others.get("max_interval", 10.0), self._pause),
            "_on_turn": self.turned,
        }

    def ready(self) -> None:
        """The service has begun; told again behind the next turn if it cannot be told now."""
        self._must_be_ready = not self._send(*self._ready)

    def turned(self, watchdog: Watching) -> None:
        """Behind each turn of the loop, in its thread: a sign of life, if it is time for one, and the state."""
        now = time.monotonic()
        if self._must_be_ready:
            self.ready()
        if now >= self._sign_at and self._send("WATCHDOG=1"):
            self._sign_at = now + self._pause
        if now >= self._status_at:
            self._status_at = now + _STATUS_PAUSE
            plural = "" if watchdog.workers == 1 else "s"
            self._tell(f"{watchdog.workers} worker{plural}, {watchdog.in_blocks} in a block{self._last}")

    def __call__(self, event: Event) -> None:
        """Remember what has happened."""
        # A kill with evidence has a report, which says more.
        if event.event in _INCIDENTS and not (event.event == "killed" and event.hang):
            who = f"worker {event.pid}" if event.rank is None else f"rank {event.rank}"
            words = event.detail if event.event == "report" else f"{who} {event.event} in {event.scope!r}"
            self._last = f"; last: {words} ({event.time})"

    def _tell(self, status: str) -> None:
        if status != self._status and self._send(f"STATUS={_line(status)}"):
            self._status = status

    def stopping(self) -> None:
        """The service is about to end; what happened last stays to be seen."""
        self._send("STOPPING=1", f"STATUS={_line('stopping' + self._last)}")

    def _send(self, *lines: str) -> bool:
        try:
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), socket.MSG_NOSIGNAL, self._address)
        except OSError:
            return False  # full, or nobody is there: the next one may get through
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        with contextlib.suppress(OSError):
            self._socket.close()


def _line(text: str) -> str:
    """One line, whatever a worker has called its block: another one would be another message."""
    return escaped(text[:_LONGEST_STATUS])[:_LONGEST_STATUS]
