"""Where the planted hangs run: copies of the programs, their library installed beside them, and who runs them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unhang._worker.implementation import PURE
from verdict_table import Case
from verdict_user import NOBODY, as_contained_root, as_ordinary_user

_HANGS = Path(__file__).with_name("hangs")
_LIBRARY = "collective.py"


def lines_marked(program: str, mark: str) -> frozenset[int]:
    """The numbers of the lines of a program that have this mark."""
    text = (_HANGS / f"{program}.py").read_text(encoding="utf-8")
    return frozenset(number for number, line in enumerate(text.splitlines(), 1) if f"# {mark}" in line)


@dataclass(frozen=True)
class Room:
    """What one run has for itself.

    Attributes:
        command: what to run, ``unhang`` and all.
        environment: for it.
        home: the directory in which it runs, and nobody else.
        reports: the directory for its reports.
    """

    command: list[str]
    environment: dict[str, str]
    home: Path
    reports: Path


class Stage:
    """Copies of the programs, and a room for each run.

    Args:
        directory: where all of it is.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.chmod(0o711)
        self._programs = directory / "programs"
        self._installed = directory / "site-packages"
        shutil.copytree(_HANGS, self._programs, ignore=shutil.ignore_patterns("__pycache__", _LIBRARY))
        self._installed.mkdir()
        shutil.copy(_HANGS / _LIBRARY, self._installed)

    def can_run(self, case: Case) -> bool:
        """Whether there is such a user here."""
        return self._way(case) is not None

    def _way(self, case: Case) -> tuple[str, ...] | None:
        """The command that runs another one as the user of a case; None if that cannot be had."""
        if case.contained:
            return as_contained_root()
        return as_ordinary_user(self._directory) if case.sealed else ()

    def room(self, case: Case) -> Room:
        """A room for a case; there is one for each."""
        home = self._directory / case.name
        reports = home / "reports"
        reports.mkdir(parents=True, mode=0o700)
        if case.sealed and not case.contained and os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
            os.chown(reports, NOBODY, NOBODY)
        home.chmod(0o700)
        options = ["--report-dir", str(reports), "--grace", "1"]
        command = [
            *(self._way(case) or ()),
            sys.executable,
            "-m",
            "unhang",
            "run",
            *options,
            "--",
            *self._program(case),
        ]
        return Room(command, self._environment(home), home, reports)

    def _program(self, case: Case) -> list[str]:
        path = str(self._programs / f"{case.program}.py")
        if case.torchrun:
            return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(case.ranks), path]
        if case.ranks:
            return [sys.executable, str(self._programs / "launch.py"), str(case.ranks), path]
        if case.sealed:
            return [sys.executable, str(self._programs / "sealed.py"), path]
        return [sys.executable, path]

    def _environment(self, home: Path) -> dict[str, str]:
        ours = {"TMPDIR": str(home), "HOME": str(home), "PYTHONPATH": self._path(), "PYTHONDONTWRITEBYTECODE": "1"}
        theirs = {
            name: value
            for name, value in os.environ.items()
            if name == PURE or not name.startswith(("UNHANG_", "XDG_"))
        }
        return {**theirs, **ours}

    def _path(self) -> str:
        return os.pathsep.join(filter(None, [str(self._installed), os.environ.get("PYTHONPATH")]))


@contextmanager
def stage() -> Iterator[Stage]:
    """A stage that is removed behind the last run."""
    # Short, since the path of a socket must be.
    with tempfile.TemporaryDirectory(prefix="verdict-") as directory:
        yield Stage(Path(directory))
