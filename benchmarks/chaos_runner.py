"""Runs a scenario where it can harm nobody: in a session of its own, which is killed behind it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from chaos_scenarios import SCENARIOS, Scenario
from chaos_shared_stage import MANY_FILES
from chaos_stage import Outcome, Verdict

# Seconds for one scenario, the import of the implementation included.
HARD_LIMIT = 90.0
# How often a scenario is played that goes wrong itself, and so says nothing.
TRIES = 3
_DIRECTOR = Path(__file__).with_name("chaos_director.py")


@functools.cache
def namespace_prefix() -> tuple[str, ...]:
    """The command that runs another one in a pid namespace of its own; empty where that is not allowed."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    prefix = (unshare, *user, "--pid", "--fork", "--kill-child", "--mount-proc")
    probe = "echo 100 >/proc/sys/kernel/ns_last_pid"
    allowed = subprocess.run([*prefix, "/bin/sh", "-c", probe], capture_output=True, check=False).returncode == 0
    return prefix if allowed else ()


def _many_files() -> bool:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard == resource.RLIM_INFINITY or hard >= MANY_FILES


def _huge_pages() -> bool:
    pool = Path("/proc/sys/vm/nr_hugepages")
    return pool.exists() and int(pool.read_text()) > 0


# What a scenario may need, whether this machine has it, and what else to say.
_NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "needs root"),
    "pid namespace": (lambda: bool(namespace_prefix()), "needs a pid namespace of its own (unshare --pid)"),
    "many files": (_many_files, f"needs {MANY_FILES} open files (ulimit -Hn)"),
    "huge pages": (_huge_pages, "needs huge pages (sysctl vm.nr_hugepages)"),
}


def why_not(scenario: Scenario) -> str | None:
    """Why this machine does not allow the scenario; None if it does."""
    if not scenario.needs:
        return None
    has_it, otherwise = _NEEDS[scenario.needs]
    return None if has_it() else otherwise


def run(scenario: Scenario, implementation: str) -> tuple[Outcome, float]:
    """The outcome, and the seconds that it took; a scenario that is broken is played again. Thread-safe."""
    play = scenario.play_for(implementation)
    if isinstance(play, str):
        return Outcome(Verdict.NO_SUCH_THING, play), 0.0
    reason = why_not(scenario)
    if reason is not None:
        return Outcome(Verdict.NOT_PROVOKED, f"not provoked: {reason}"), 0.0
    started = time.monotonic()
    for _ in range(TRIES):
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            outcome = _run_in(Path(folder), scenario, implementation)
        if outcome.verdict is not Verdict.BROKEN:
            break
    return outcome, time.monotonic() - started


def _run_in(folder: Path, scenario: Scenario, implementation: str) -> Outcome:
    result = folder / "result.json"
    prefix = namespace_prefix() if scenario.needs == "pid namespace" else ()
    arguments = (str(SCENARIOS.index(scenario)), implementation, str(result))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-W", "ignore", str(_DIRECTOR), *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timed_out = _await_and_clear(process)
    if result.exists():
        saved = json.loads(result.read_text())
        return Outcome(Verdict(saved["verdict"]), saved["line"])
    if timed_out:
        return Outcome(Verdict.BROKEN, f"no result within {HARD_LIMIT:g} s")
    if process.returncode < 0:
        return Outcome(Verdict.FAILED, f"{scenario.on_death} ({process.returncode})")
    last_words = (folder / "log").read_text().splitlines()[-1:]
    return Outcome(Verdict.BROKEN, f"exit code {process.returncode}: {' '.join(last_words)[:100]}")


def _await_and_clear(process: subprocess.Popen[bytes]) -> bool:
    """Wait for the process, kill what is left of its session, and return whether its time was over.

    The process is reaped last: until then its pid, which names the session too, cannot be anybody else's.
    """
    timed_out = threading.Event()

    def end() -> None:
        timed_out.set()
        os.kill(process.pid, signal.SIGKILL)

    timer = threading.Timer(HARD_LIMIT, end)
    timer.start()
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:
        timer.cancel()
        timer.join()
        _kill_session(process.pid)
        process.wait()
    return timed_out.is_set()


def _kill_session(session: int) -> None:
    """Kill the processes of the session until there are none, zombies left out; gives up after some seconds."""
    for _ in range(50):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)
        members = [member for member in psutil.process_iter() if _is_alive_in(session, member)]
        if not members:
            return
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(members, timeout=0.1)


def _is_alive_in(session: int, process: psutil.Process) -> bool:
    with contextlib.suppress(OSError, psutil.Error):
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    return False
