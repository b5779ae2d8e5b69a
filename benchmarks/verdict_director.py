"""Runs one planted hang for real under ``unhang run``, and returns the reports that it wrote."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from unhang.report.model import Report, decode
from verdict_stage import Room, Stage
from verdict_table import Case

# Seconds for one run, its start included.
_LIMIT = 25.0
_LIMIT_TORCH = 75.0
# Seconds behind a complete report in which more reports would be one too many.
_AFTERMATH = 1.0
_PAUSE = 0.05


@dataclass(frozen=True)
class Run:
    """What came of a run.

    Attributes:
        reports: those about an expiry, the first one first.
        log: what was printed.
        seconds: that it took.
        trouble: what was wrong with the run itself, or empty.
    """

    reports: list[Report]
    log: str
    seconds: float
    trouble: str = ""


def run(case: Case, stage: Stage) -> Run:
    """Run the case to its end, or until its report is complete; nothing of it is left behind. Thread-safe."""
    room = stage.room(case)
    started = time.monotonic()
    with (room.home / "log").open("wb") as log:
        process = subprocess.Popen(
            room.command,
            cwd=room.home,
            env=room.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            trouble = _await(process, room, started + (_LIMIT_TORCH if case.torchrun else _LIMIT))
        finally:
            _clear(process)
    reports, broken = _reports(room.reports)
    text = (room.home / "log").read_text(encoding="utf-8", errors="replace")
    return Run(reports, text, time.monotonic() - started, broken or trouble)


def _await(process: subprocess.Popen[bytes], room: Room, give_up: float) -> str:
    """Wait until the command has ended, or its report is complete; returns what is wrong."""
    while time.monotonic() < give_up:
        if _has_ended(process):
            return ""
        reports, _ = _reports(room.reports)
        if reports and all(report.complete for report in reports):
            give_up = min(give_up, time.monotonic() + _AFTERMATH)
            while time.monotonic() < give_up and not _has_ended(process):
                time.sleep(_PAUSE)
            return ""
        time.sleep(_PAUSE)
    return "not over in time"


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has; it is not reaped yet, so that its pid, which names its session, is nobody else's."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _reports(directory: Path) -> tuple[list[Report], str]:
    """The reports about expiries, and what is wrong with one that cannot be read."""
    reports = []
    for path in sorted(directory.glob("*.json")):
        try:
            reports.append(decode(path.read_bytes()))
        except ValueError as error:
            return [], f"{path.name}: {error}"
    expired = [report for report in reports if report.kind == "expired"]
    return sorted(expired, key=lambda report: report.time), ""


def _clear(process: subprocess.Popen[bytes]) -> None:
    """Kill all that the run has started, and reap it.

    ``unhang run`` keeps below itself what its workers leave behind, so it goes last.
    """
    _kill_all(lambda: _below(process.pid))
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    _kill_all(lambda: [other for other in psutil.process_iter() if _in_session(process.pid, other)])
    process.wait()


def _kill_all(found: Callable[[], list[psutil.Process]]) -> None:
    """Kill those that are found until there are none; gives up after some seconds."""
    for _ in range(50):
        members = found()
        if not members:
            return
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(members, timeout=0.1)


def _below(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process for process in psutil.Process(pid).children(recursive=True) if _lives(process)]
    return []


def _in_session(session: int, process: psutil.Process) -> bool:
    with contextlib.suppress(OSError):
        return process.pid != session and os.getsid(process.pid) == session and _lives(process)
    return False


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
