"""Reports: judged, kept, printed, and handed to whoever wants them. Called in helper threads."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Protocol

import msgspec

from unhang._verdict.culprit import judge
from unhang._watchdog.hooks import Hooks
from unhang._watchdog.incident import Findings
from unhang.report import text
from unhang.report.headline import headline
from unhang.report.model import Report, Verdict, Worker

logger = logging.getLogger("unhang.watchdog")


# Incidents of which it is known who has been told.
_REMEMBERED = 64


class Store(Protocol):
    """Where reports are kept."""

    def write(self, report: Report) -> str:
        """Keep a report; returns its path.

        Raises:
            OSError: it cannot be kept.
        """


class Recorder:
    """Makes the reports of a server. Thread-safe.

    Args:
        store: makes the place where they are kept, when the first one is; None: nowhere.
        hooks: called with each report.
        version: of unhang.
    """

    def __init__(self, store: Callable[[], Store] | None, hooks: Hooks, version: str) -> None:
        self._make_store = store
        self._store: Store | None = None
        self._hooks = hooks
        self._version = version
        self._lock = threading.Lock()
        self._failed = False
        self._told: dict[str, set[int]] = {}

    def record(self, findings: Findings) -> None:
        """Make, keep and print the report of an incident. Whatever goes wrong is logged: kills wait for this."""
        report = self._report(findings)
        path = self._keep(report)
        self._print(report, path, first=findings.first)
        self._hooks.call(report)

    def _print(self, report: Report, path: str, *, first: bool) -> None:
        """The report when it is new; then a line for each worker that has joined it."""
        expired = {worker.pid for worker in report.workers if worker.expired}
        with self._lock:
            told = self._told.pop(report.id, set())
            self._told[report.id] = told | expired
            while len(self._told) > _REMEMBERED:
                del self._told[next(iter(self._told))]
        if first:
            level = logging.ERROR if expired else logging.WARNING
            logger.log(level, "%s", text.render(report) + (f"\nreport: {path}" if path else ""))
            return
        for worker in report.workers:
            if worker.pid in expired - told:
                logger.error("%s; added to report %s", _alone(report, worker), report.id)

    def _report(self, findings: Findings) -> Report:
        verdict = judge(findings.workers, findings.departed)
        report = Report(
            id=findings.id,
            time=findings.time,
            host=socket.gethostname(),
            job=findings.job,
            kind="expired" if any(worker.expired for worker in findings.workers) else "pretimeout",
            verdict=verdict,
            workers=_in_order(findings.workers, verdict),
            progressing=findings.progressing,
            departed=findings.departed,
            complete=findings.complete,
            watchdog=os.getpid(),
            version=self._version,
        )
        return msgspec.structs.replace(report, headline=headline(report))

    def _keep(self, report: Report) -> str:
        """Returns its path; empty if it is not kept."""
        if self._make_store is None:
            return ""
        try:
            with self._lock:
                self._store = self._store or self._make_store()
                path = self._store.write(report)
        except (OSError, ValueError) as error:
            if not self._failed:
                logger.warning("The report cannot be kept: %s", error)
            self._failed = True
            return ""
        self._failed = False
        return path


def _alone(report: Report, worker: Worker) -> str:
    """The headline of a report that has this worker only."""
    verdict = Verdict(culprits=(worker.pid,))
    return headline(msgspec.structs.replace(report, workers=(worker,), departed=(), verdict=verdict))


def _in_order(workers: tuple[Worker, ...], verdict: Verdict) -> tuple[Worker, ...]:
    """The culprits first, then those that have expired, then by rank and pid."""

    def place(worker: Worker) -> tuple[bool, bool, int, int]:
        rank = -1 if worker.rank is None else worker.rank
        return worker.pid not in verdict.culprits, not worker.expired, rank, worker.pid

    return tuple(sorted(workers, key=place))
