"""Evidence for the servers of the timer contract, whose workers are not connected: at once, and in the loop's thread.

They kill at the deadline, so this is for those who ask for it.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from unhang._core import real_time as time
from unhang._platform.process import ProcessHandle
from unhang._verdict.culprit import judge
from unhang._watchdog.evidence import Subject, gather
from unhang._watchdog.hooks import Hooks, OnExpired
from unhang._watchdog.watch import RequestLike, Watch
from unhang.report.headline import headline
from unhang.report.model import Block, Evidence, Report, Worker

# Seconds for all of it, and how many workers are looked into.
_BUDGET = 1.0
_MOST = 16


class ContractHooks:
    """The callback of a server of the timer contract.

    Args:
        on_expired: called with reports, as by `unhang._watchdog.hooks.Hooks`.
    """

    def __init__(self, on_expired: OnExpired) -> None:
        self._hooks = Hooks([on_expired])

    def look_into(self, watch: Watch[Any], expired: Mapping[int, Sequence[RequestLike]], job: str = "") -> bool:
        """Find out about workers that were not tried before, and have it called; returns whether there are any."""
        fresh = {pid: timers for pid, timers in expired.items() if not watch.is_retried(pid)}
        if not fresh:
            return False
        # Some may only be told about: they are not to be disturbed.
        gentle = any(getattr(timers[0], "signal", 1) <= 0 for timers in fresh.values())
        blocks = {pid: [block_of(timer.scope_id, timer.expiration_time) for timer in fresh[pid]] for pid in fresh}
        self._hooks.call(report_of(blocks, job, gentle=gentle))
        return True


def report_of(workers: Mapping[int, Sequence[Block]], job: str, *, gentle: bool) -> Report:
    """What is found of workers whose timers have expired, within a second. Never raises.

    Args:
        workers: by pid, the timers.
        job: the id of the run.
        gentle: whether they are not to be disturbed, since they may live on.
    """
    began = time.monotonic()
    found: dict[int, Evidence] = {}

    def look_into(pid: int, handle: ProcessHandle) -> None:
        scope = workers[pid][0].scope if workers[pid] else ""
        found[pid] = gather(Subject(handle, scope), gentle=gentle, budget=_BUDGET, began=began)

    threads = []
    for pid in list(workers)[:_MOST]:
        handle = ProcessHandle.open(pid) if pid > 1 else None
        if handle is not None:
            threads.append(threading.Thread(target=look_into, args=(pid, handle), daemon=True))
            threads[-1].start()
    for thread in threads:
        thread.join(max(0.0, began + _BUDGET - time.monotonic()))
    return _report([_worker(pid, blocks, found.get(pid)) for pid, blocks in workers.items()], job)


def block_of(scope: str, expiration_time: float) -> Block:
    """A timer of the contract, by the wall clock; when it was armed is not known, nor after what time it expires."""
    at = min(0.0, expiration_time - time.time()) if expiration_time > 0 else 0.0
    return Block(scope=scope, after=0.0, started=at, deadline=at, expired=True)


def _worker(pid: int, blocks: Sequence[Block], evidence: Evidence | None) -> Worker:
    return Worker(pid=pid, expired=True, blocks=tuple(blocks), evidence=evidence)


def _report(workers: Sequence[Worker], job: str) -> Report:
    report = Report(
        id=secrets.token_hex(4),
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        host=socket.gethostname(),
        job=job,
        verdict=judge(workers),
        workers=tuple(workers),
        complete=True,
        watchdog=os.getpid(),
    )
    return msgspec.structs.replace(report, headline=headline(report))
