"""How many instructions a block takes, by callgrind: prints JSON, a number for each way to guard a block.

A process of its own runs each way a few times and many times; the difference is the block's. There is no watchdog:
the page is this process's own, and its look is promised to lie near.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import unhang
from bench_empty import AFTER, Empty
from unhang._core.duration_pages import DurationWriter
from unhang._core.page import PageWriter
from unhang._worker import choose
from unhang._worker.client import SharedTimerClient

_FEW, _MANY, _MANY_QUICK = 1000, 11_000, 3000
_LOOP = "the loop"


class Alone:
    """A channel without a watchdog."""

    def new_page(self, size: int) -> PageWriter:
        """A page whose look lies near."""
        page = PageWriter(bytearray(size))
        page.watched[0] = page.watched[1] = time.monotonic_ns() + 1_000_000_000
        return page

    def new_durations(self, size: int) -> DurationWriter:
        """Memory of this process."""
        return DurationWriter(memoryview(bytearray(size)))

    def attend(self, watched: memoryview, deadline: int) -> bool:
        """The look lies near again."""
        watched[0] = deadline - 1_000_000_000
        return True

    def find(self) -> None:
        """There is nobody to find."""

    def connect(self) -> str | None:
        """There is nobody."""
        return None

    def tell(self) -> None:
        """There is nothing to say."""

    def abandon(self) -> None:
        """There is nobody to leave."""


def _empty() -> None:
    for _ in _times():
        with Empty():
            pass


def _named() -> None:
    expires = unhang.expires
    for _ in _times():
        with expires(after=AFTER, scope="step"):
            pass


def _unnamed() -> None:
    expires = unhang.expires
    for _ in _times():
        with expires(after=AFTER):
            pass


def _beats() -> None:
    with unhang.heartbeat(after=AFTER, scope="beats") as heartbeat:
        for _ in _times():
            heartbeat.beat()


def _setitimer() -> None:
    for _ in _times():
        signal.setitimer(signal.ITIMER_REAL, AFTER)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _nothing() -> None:
    for _ in _times():
        pass


_WAYS: dict[str, Callable[[], None]] = {
    _LOOP: _nothing,
    "empty with": _empty,
    "a named block": _named,
    "an unnamed block": _unnamed,
    "a beat()": _beats,
    "signal.setitimer, set and cleared": _setitimer,
}


def _times() -> range:
    return range(int(sys.argv[2]))


def _count(way: str, times: int) -> int:
    """The instructions of a process that does it so often."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [*command, way, str(times)], check=True, stderr=subprocess.PIPE, env=environment, encoding="utf-8"
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(f"callgrind does not say how many instructions: {done.stderr[-500:]}")
    return int(found[1])


def main() -> None:
    """Count, for each way; nothing, if there is no valgrind."""
    if len(sys.argv) > 2 and sys.argv[1] in _WAYS:
        choose.set_client(SharedTimerClient._over(Alone(), time.monotonic_ns))
        _WAYS[sys.argv[1]]()
        return
    from bench_channel import section_arguments  # what is counted starts faster without

    many = _MANY_QUICK if section_arguments(__doc__).quick else _MANY
    each: dict[str, float] = {}
    if shutil.which("valgrind"):
        each = {way: (_count(way, many) - _count(way, _FEW)) / (many - _FEW) for way in _WAYS}
        loop = each.pop(_LOOP)
        each = {way: count - loop for way, count in each.items()}
    json.dump(each, sys.stdout)


if __name__ == "__main__":
    main()
