"""Control groups that are frozen: none of their processes runs until they are thawed (``docker pause``)."""

from __future__ import annotations

from unhang._platform.process import _read

_ROOT = "/sys/fs/cgroup"


def is_frozen(pid: int) -> bool:
    """Whether the control group of a process is frozen, as far as that can be seen from here. Never raises."""
    try:
        lines = _read(f"/proc/{pid}/cgroup").decode(errors="surrogateescape").splitlines()
    except OSError:
        return False
    return any(_is_frozen(*line.split(":", 2)) for line in lines if line.count(":") >= 2)


def _is_frozen(hierarchy: str, controllers: str, path: str) -> bool:
    try:
        if hierarchy == "0":
            return b"frozen 1" in _read(f"{_ROOT}{path}/cgroup.events").splitlines()
        if controllers == "freezer":
            return not _read(f"{_ROOT}/freezer{path}/freezer.state").startswith(b"THAWED")
    except OSError:
        pass
    return False
