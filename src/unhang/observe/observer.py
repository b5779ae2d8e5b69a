"""The observer: a process beside the watchdog that looks at it, answers HTTP, and keeps what is learned.

If it hangs or dies, the watchdog does not notice. One that dies is started again, behind a pause that grows from one
second to a minute; what it has counted begins anew then, with the events that the watchdog still knows. It ends when
the watchdog's process does, however that ends. It is in a session of its own, so the terminal's Ctrl-C is not for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import threading
import time
from dataclasses import asdict, dataclass, replace

from unhang._platform import servants
from unhang._platform.own_process import command
from unhang.observe import endpoint

logger = logging.getLogger("unhang.observe")

# What it is to do comes over the pipe that says, by its end, when this process has ended.
_CODE = """
import json, sys
told = json.loads(sys.stdin.buffer.readline())
from unhang.observe.observing import main
main(told)
"""
# Seconds.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_LAST_LOOK = 5.0


@dataclass(frozen=True)
class Observing:
    """What an observer does.

    Attributes:
        http: where it answers HTTP, as `unhang.observe.endpoint` reads it; None: nowhere.
        max_stall, min_workers, startup, idle_too: what is well: see `unhang.observe.health.Limits`.
        learn: the file in which learned durations are kept; None: none are learned.
    """

    http: str | None = None
    max_stall: float = 300.0
    min_workers: int = 0
    startup: float = 0.0
    idle_too: bool = False
    learn: str | None = None

    @property
    def is_needed(self) -> bool:
        """Whether it does anything."""
        return self.http is not None or self.learn is not None


class Observer:
    """A process that observes; see above. `close` ends it.

    Args:
        address: the watchdog's.
        observing: what it does.

    Attributes:
        url: where it answers HTTP; empty if it does not.

    Raises:
        EndpointError: HTTP cannot be served there.
    """

    def __init__(self, address: str, observing: Observing) -> None:
        self._http = None if observing.http is None else endpoint.listen(observing.http)
        self.url = "" if self._http is None else endpoint.url_of(self._http)
        learn = None if observing.learn is None else os.path.abspath(observing.learn)  # noqa: PTH100 - links stay
        self._told = {"address": address, **asdict(replace(observing, learn=learn))}
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="unhang-observer", daemon=True)

    def start(self) -> None:
        """Start it, and keep it going."""
        self._spawn()
        self._thread.start()

    @property
    def pid(self) -> int:
        """Its process; 0 while there is none."""
        process = self._process
        return 0 if process is None else process.pid

    def _spawn(self) -> None:
        try:
            self._process = servants.start(self._popen)
        except OSError as error:
            logger.warning("The observer cannot be started: %s", error)
            return
        told = {
            **self._told,
            "again": self._started > 0,
            "socket": None if self._http is None else self._http.fileno(),
        }
        self._started += 1
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(told).encode() + b"\n")
            self._process.stdin.flush()

    def _popen(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command(_CODE),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[] if self._http is None else [self._http.fileno()],
            cwd="/",
            start_new_session=True,
        )

    def _keep(self) -> None:
        pause = _SHORTEST_PAUSE
        while True:
            began = time.monotonic()
            status = self._wait()
            if self._closing.is_set():
                return
            if time.monotonic() - began > _LONGEST_PAUSE:
                pause = _SHORTEST_PAUSE
            if status is not None:
                logger.warning("The observer ended (%s); another one is started in %g s", status, pause)
            if self._closing.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE)
            self._spawn()
            if self._closing.is_set():
                self._let_go()

    def _wait(self) -> int | None:
        process = self._process
        if process is None:
            return None
        status = process.wait()
        servants.ended(process.pid)
        self._let_go()
        self._process = None
        return status

    def _let_go(self) -> None:
        """End its lifeline."""
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def close(self) -> None:
        """Let it look a last time, and wait for its end; kill it when it does not come. May be called twice."""
        self._closing.set()
        self._let_go()
        if self._thread.is_alive():
            self._thread.join(_LAST_LOOK)
        process = self._process
        if self._thread.is_alive() and process is not None:
            logger.warning("The observer does not end; it is killed")
            process.kill()
            self._thread.join(_LAST_LOOK)
        if self._http is not None:
            self._http.close()


def start_observer(address: str, observing: Observing) -> Observer | None:
    """Start an observer of the watchdog at an address; None if it would have nothing to do.

    Raises:
        EndpointError: HTTP cannot be served there.
    """
    if not observing.is_needed:
        return None
    observer = Observer(address, observing)
    observer.start()
    if observing.http is not None:
        # Nobody knows a port that was chosen here.
        level = logging.INFO if endpoint.parse_endpoint(observing.http)[1] else logging.WARNING
        logger.log(level, "HTTP is served at %s", observer.url)
    return observer
