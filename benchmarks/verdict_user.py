"""Who runs the sealed programs: an ordinary user, who may not trace other processes."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

NOBODY = 65534
_SEEN_BY_ALL = 0o755


@functools.cache
def as_ordinary_user(directory: Path) -> tuple[str, ...] | None:
    """The command that runs another one as an ordinary user; empty if we are one; None if that cannot be had.

    Args:
        directory: one that others may enter, for what is needed to get there.
    """
    if os.geteuid() != 0:
        return ()
    setpriv, unshare = shutil.which("setpriv"), shutil.which("unshare")
    if setpriv is None:
        return None
    user = (setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    ways: list[tuple[str, ...]] = [user]
    if unshare is not None:
        ways.append((unshare, "--mount", "/bin/sh", "-c", _let_in(directory), "sh", *user))
    return next((way for way in ways if _can_run(way)), None)


@functools.cache
def as_contained_root() -> tuple[str, ...] | None:
    """The command that runs another one as root who may not trace processes; None if that cannot be had."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        return None
    way = (setpriv, "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
    return way if _can_run(way) else None


def _can_run(way: tuple[str, ...]) -> bool:
    """Whether such a user can run our Python, and have it run again: what ``setpriv`` runs, it runs as root still."""
    again = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import unhang.cli.run'], check=True)"
    return (
        subprocess.run([*way, sys.executable, "-c", again], cwd="/", capture_output=True, check=False).returncode == 0
    )


def _let_in(directory: Path) -> str:
    """A shell's program: show this Python at its place though the way there is closed to others, and run the rest.

    For a mount namespace: nobody outside sees it.
    """
    closed: dict[Path, list[Path]] = {}
    for path in sorted({Path(sys.base_prefix), Path(sys.prefix), Path(__file__).resolve().parents[1]}):
        barrier = next((parent for parent in reversed(path.parents) if not _may_be_entered(parent)), None)
        if barrier is not None:
            closed.setdefault(barrier, []).append(path)
    steps = [step for barrier, paths in closed.items() for step in _steps(directory, barrier, paths)]
    return " && ".join([*steps, 'exec "$@"'])


def _may_be_entered(directory: Path) -> bool:
    return bool(directory.stat().st_mode & stat.S_IXOTH)


def _steps(directory: Path, barrier: Path, paths: list[Path]) -> list[str]:
    """Put an empty directory over the closed one, with nothing but these paths in it."""
    kept = {path: directory / "kept" / str(path).replace("/", "-") for path in paths}
    out = [["mkdir", "-p", *map(str, kept.values())], *(["mount", "--bind", str(a), str(b)] for a, b in kept.items())]
    over = ["mount", "-t", "tmpfs", "-o", f"mode={_SEEN_BY_ALL:o}", "none", str(barrier)]
    back = [["mkdir", "-p", *map(str, paths)], *(["mount", "--bind", str(b), str(a)] for a, b in kept.items())]
    return [shlex.join(command) for command in (*out, over, *back)]
