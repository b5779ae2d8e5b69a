"""Stacks of one worker that somebody asks for while it is well, as far as anybody knows: without disturbing it."""

from __future__ import annotations

import functools
import os
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec.structs import replace

from unhang._core.clock import Clock
from unhang._watchdog.evidence import Options, Subject, gather
from unhang._watchdog.helpers import Helpers
from unhang._watchdog.seen import Seen
from unhang._watchdog.timers import Timers
from unhang._watchdog.watched import Watched
from unhang.report.fit import fit
from unhang.report.headline import headline
from unhang.report.model import Report, Verdict

# At once, for all who ask; seconds that it may take; bytes that the answer has at most.
_AT_ONCE = 2
_BUDGET = 2.0
_MOST_BYTES = 96 * 1024


class Asked:
    """Gathers such stacks in the threads of a server. It belongs to the server's loop.

    Args:
        helpers: the threads.
        subject: what evidence about a worker is gathered from.
        options: what is gathered.
        clock: monotonic time.
    """

    def __init__(self, helpers: Helpers, subject: Callable[[Seen], Subject], options: Options, clock: Clock) -> None:
        self._helpers = helpers
        self._subject = subject
        self._options = options
        self._clock = clock
        self._under_way = 0

    def gather(self, worker: Watched, done: Callable[[Report | None], None]) -> bool:
        """Begin with a worker; ``done`` is called in the loop, with None if it is gone. False: too many at once."""
        if self._under_way >= _AT_ONCE or worker.handle is None:
            return False
        self._under_way += 1
        now = self._clock.now()
        seen = Seen(worker, worker.handle.copy(), Timers.of(worker, round(now * 1e9)))

        def ended(report: Report | None) -> None:
            self._under_way -= 1
            done(report)

        self._helpers.submit(functools.partial(self._report, seen, self._subject(seen), now), ended)
        return True

    def _report(self, seen: Seen, subject: Subject, began: float) -> Report:
        seen.evidence = gather(subject, gentle=True, budget=_BUDGET, began=began, options=self._options)
        identity = seen.watched.origin.identity
        report = Report(
            id=secrets.token_hex(4),
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            host=socket.gethostname(),
            job=identity.job,
            kind="asked",
            verdict=Verdict(why="it was only asked what it does"),
            workers=(seen.worker(began),),
            complete=True,
            watchdog=os.getpid(),
        )
        return fit(replace(report, headline=headline(report)), _MOST_BYTES)
