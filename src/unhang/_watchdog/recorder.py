"""Reports: judged, kept, printed, and handed to whoever wants them. Called in helper threads."""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from unhang._platform.logs import terminal_width
from unhang._platform.patience import within
from unhang._verdict.culprit import judge
from unhang._watchdog.hooks import Hooks
from unhang._watchdog.incident import Findings
from unhang.report import about, text
from unhang.report.headline import headline
from unhang.report.model import Report, Verdict, Worker
from unhang.report.words import number

logger = logging.getLogger("unhang.watchdog")


# What the log of a watchdog writes to, and what stands there before each record.
_STDERR, _LEAD = 2, "unhang: "
# Seconds that keeping a report may take.
_KEEPING = 1.0
# Incidents of which it is known who has been told.
_REMEMBERED = 64


class Store(Protocol):
    """Where reports are kept."""

    def write(self, report: Report) -> str:
        """Keep a report; returns its path.

        Raises:
            OSError: it cannot be kept.
        """


class _Kept(NamedTuple):
    path: str


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
        self._told: dict[str, set[tuple[int, float]]] = {}

    def record(self, findings: Findings, told: Callable[[Report], None] | None = None) -> None:
        """Make, keep and print the report of an incident. Whatever goes wrong is logged: kills wait for this.

        Args:
            findings: the incident.
            told: called with the report when it is new, and when all that was to be done has been done.
        """
        if not self._is_wanted(findings):
            return
        report = self._report(findings)
        path = self._keep(report)
        self._print(report, path, findings)
        self._hooks.call(report)
        if told is not None and (findings.first or findings.complete):
            told(report)

    def publish(self, report: Report, *, next_step: str = "", is_news: bool = True) -> None:
        """Keep a report that was made elsewhere; print it if it is news. Whatever goes wrong is logged."""
        path = self._keep(report)
        if is_news:
            _print_whole(report, path, next_step, logging.ERROR)
        self._hooks.call(report)

    def _is_wanted(self, findings: Findings) -> bool:
        """Whether anybody gets to see it: one that was printed before is news only with workers that were not in it."""
        if findings.first or self._make_store is not None or self._hooks:
            return True
        with self._lock:
            told = self._told.get(findings.id, set())
        return any(worker.expired and _occasion(worker) not in told for worker in findings.workers)

    def _print(self, report: Report, path: str, findings: Findings) -> None:
        """The report when it is new; then a line for each worker that has joined it, or has expired again."""
        expired = {_occasion(worker) for worker in report.workers if worker.expired}
        with self._lock:
            told = self._told.pop(report.id, set())
            self._told[report.id] = told | expired
            while len(self._told) > _REMEMBERED:
                del self._told[next(iter(self._told))]
        if findings.first:
            _print_whole(report, path, findings.next_step, logging.ERROR if expired else logging.WARNING)
            return
        for worker in report.workers:
            if worker.expired and _occasion(worker) not in told:
                logger.error("%s; added to report %s", _alone(report, worker), report.id)

    def _report(self, findings: Findings) -> Report:
        has_expired = any(worker.expired for worker in findings.workers)
        verdict = Verdict(why="nothing has expired yet")
        if has_expired:
            verdict = judge(findings.workers, findings.departed, findings.progressing)
        report = Report(
            id=findings.id,
            time=findings.time,
            host=socket.gethostname(),
            job=findings.job,
            kind="expired" if has_expired else "pretimeout",
            verdict=verdict,
            workers=_in_order(findings.workers, verdict),
            progressing=findings.progressing,
            departed=findings.departed,
            omitted=(f"{number(findings.left_out, 'more worker')} as quiet as these",) if findings.left_out else (),
            complete=findings.complete,
            watchdog=os.getpid(),
            version=self._version,
        )
        return msgspec.structs.replace(report, headline=headline(report))

    def _keep(self, report: Report) -> str:
        """Returns its path; empty if it is not kept."""
        if self._make_store is None:
            return ""
        # A directory on a network may take for ever: what is printed, and callbacks, do not wait for that.
        late: _Kept | str = "it takes too long"
        kept = within(_KEEPING, functools.partial(self._write, report), late)
        if isinstance(kept, _Kept):
            self._failed = False
            return kept.path
        if not self._failed:
            logger.warning("The report cannot be kept: %s; --report-dir (UNHANG_REPORT_DIR) names another place", kept)
        self._failed = True
        return ""

    def _write(self, report: Report) -> _Kept | str:
        """Where it is kept, or why it is not."""
        assert self._make_store is not None  # noqa: S101 - for the type checker: see `_keep`
        try:
            self._store = self._store or self._make_store()
            return _Kept(self._store.write(report))
        except FileNotFoundError:
            # Somebody has tidied up: it is made anew.
            self._store = None
        except (OSError, ValueError) as error:
            return str(error)
        try:
            self._store = self._make_store()
            return _Kept(self._store.write(report))
        except (OSError, ValueError) as error:
            return str(error)


def _print_whole(report: Report, path: str, next_step: str, level: int) -> None:
    columns = terminal_width(_STDERR)
    lines = text.render(report, columns or text.WIDTH, lead=None if columns is None else len(_LEAD)).split("\n")
    if next_step:
        lines = [*lines[: text.MOST_LINES - 1], f"next:    {next_step}"]
    logger.log(level, "%s", "\n".join([*lines, f"report: {path}"] if path else lines))


def _occasion(worker: Worker) -> tuple[int, float]:
    """Which worker, and which of its blocks."""
    block = about.block_of(worker)
    return worker.pid, round(block.started, 3) if block and block.expired else 0.0


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
