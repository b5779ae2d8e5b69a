"""Whether the kernel has killed for want of memory in the control group of a process."""

from __future__ import annotations

import os
from dataclasses import dataclass

from unhang._platform.process import _read

_ROOT = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """The control group whose memory limit counts for a process. Two kills of the same count: nobody was killed.

    Attributes:
        path: the file that counts the kills.
    """

    path: str

    @classmethod
    def of(cls, pid: int) -> MemoryGroup | None:
        """That of a process now; None if there is none, or if it does not count. Never raises."""
        try:
            lines = _read(f"/proc/{pid}/cgroup").decode().splitlines()
        except (OSError, ValueError):
            return None
        for line in lines:
            _, controllers, group = line.split(":", 2)
            for path in _candidates(controllers, group):
                found = cls(path)
                if found.kills() is not None:
                    return found
        return None

    def kills(self) -> int | None:
        """How many processes of the group the kernel has killed for want of memory; None if that is not known."""
        try:
            for line in _read(self.path).splitlines():
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
        except (OSError, ValueError, IndexError):
            pass
        return None


def _candidates(controllers: str, group: str) -> list[str]:
    """Where the counter may be. In a container, the group may be mounted as the root."""
    names: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    if controllers == "":
        names, mounts = ("memory.events.local", "memory.events"), (_ROOT, f"{_ROOT}/unified")
    elif "memory" in controllers.split(","):
        names, mounts = ("memory.oom_control",), (f"{_ROOT}/memory",)
    folders = (group.rstrip("/"), "")
    found = [os.path.normpath(f"{mount}{folder}/{name}") for folder in folders for mount in mounts for name in names]
    return [path for path in found if path.startswith(f"{_ROOT}/")]
