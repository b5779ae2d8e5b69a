"""Faults 28 and 29 for shared timers as they come: reports that cannot be kept, and a whole job that hangs at once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from chaos_shared_endings import ended, first_signal, note, serve
from chaos_shared_stage import EVIDENCE, GRACE, SharedStage, none_else
from chaos_stage import LIMIT, BrokenScenarioError, Outcome, Stage, Verdict, failed, wait_until
from unhang.report.model import Report, decode

RANKS = 8
_JOB = "chaos"
# What the watchdog's log says when a report cannot be kept.
_NOT_KEPT = "The report cannot be kept"

# In the server's process: what was in the directory for reports when the first signal was sent.
_kept: list[bytes] = []


def not_kept(stage: SharedStage, *, full: bool) -> Outcome:
    """The directory for reports is on a device that is full, or that can only be read. Mounts it: in a namespace."""
    stage.reports.mkdir(mode=0o700)
    options = "size=16k,mode=700" if full else "mode=700,ro"
    mount = [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(stage.reports)]
    subprocess.run(mount, check=True, capture_output=True)
    if full:
        _fill(stage.reports / "other")
    server, innocents = serve(stage)
    hung = stage.hung(0.5)
    outcome = ended(server, hung, hung.hear(), innocents, "; said in the log, once")
    told = Path("log").read_text().count(_NOT_KEPT)
    if outcome.verdict is Verdict.SURVIVED and (told != 1 or stage.kept()):
        return failed(f"reports: {len(stage.kept())}, said that one cannot be kept: {told} times")
    return outcome


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def ranks_at_once(stage: SharedStage) -> Outcome:
    """Eight ranks of a job hang in a receive that nobody answers."""
    server, innocents = serve(stage, on_event=_note_and_read(stage.reports))
    ranks = [stage.worker(_hang_in_receive, rank, 0.5) for rank in range(RANKS)]
    for rank in ranks:
        rank.hear()
    for rank in ranks:
        rank.pipe.send("hang")
    deadlines = [rank.hear() for rank in ranks]
    if not all(rank.killed_within(max(deadlines) + EVIDENCE + LIMIT - time.monotonic()) for rank in ranks):
        return failed("a rank that hangs is alive")
    gone = time.monotonic()
    signals = [first_signal(server, rank) for rank in ranks]
    first, last = (pick(signal for signal in signals if signal is not None) for pick in (min, max))
    if gone - first > GRACE + 1.0 or None in signals:
        return failed(f"the last one is gone {gone - first:.1f} s behind the first signal")
    trouble = _trouble([decode(document) for document in server.ask(_read)])
    if trouble:
        return failed(f"before the first signal: {trouble}")
    wait_until(lambda: [report.complete for report in stage.kept()] == [True], "one complete report", limit=2.0)
    waited = f"first signal {(first - min(deadlines)) * 1000:.0f} ms late, last {(last - min(deadlines)) * 1000:.0f} ms"
    return none_else(server, innocents, f"one report with {RANKS} stacks before it; {waited}")


def _note_and_read(reports: Path) -> Any:
    def noted(event: str, pid: int | None, timers: list[Any]) -> None:
        if event == "killed" and not _kept:
            _kept.extend(path.read_bytes() for path in sorted(reports.glob("*.json")))
        note(event, pid, timers)

    return noted


def _read(_server: Any) -> list[bytes]:
    return _kept


def _trouble(reports: list[Report]) -> str:
    """What is missing in what was known before anybody was signalled; empty if nothing is."""
    if len(reports) != 1:
        return f"{len(reports)} reports"
    workers = [worker for worker in reports[0].workers if worker.rank is not None]
    if any(step.what.startswith("SIG") for worker in workers for step in worker.steps):
        raise BrokenScenarioError("the report was read too late")
    stacks = sum(
        1 for worker in workers if worker.evidence and any(thread.frames for thread in worker.evidence.threads)
    )
    return "" if stacks == RANKS else f"stacks of {stacks} of {RANKS} ranks"


def _hang_in_receive(stage: Stage, rank: int, after: float, pipe: Connection) -> None:
    os.environ |= {"UNHANG_JOB": _JOB, "RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    client = stage.client()
    client.connect()
    ours, theirs = socket.socketpair()
    pipe.send("connected")
    pipe.recv()
    deadline = time.monotonic() + after
    with theirs, stage.api.expires(after=after, scope="all_reduce", client=client):
        pipe.send(deadline)
        ours.recv(1)
