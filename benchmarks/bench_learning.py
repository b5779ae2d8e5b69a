"""What it costs a block that its duration is written down: prints JSON, microseconds with and without, in turns.

Each way is a process of its own, since in plain Python all timers of a process learn, or none asks. There is no
watchdog: the page is the process's own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import unhang
from bench_channel import PLAIN, section_arguments
from bench_empty import AFTER, Empty
from bench_instructions import Alone
from unhang._worker.client import SharedTimerClient
from unhang._worker.implementation import PURE

_LOOPS = 20_000
_ROUNDS, _ROUNDS_QUICK = 60, 10
_WAYS = ("block", "beat()", "empty with")


def _blocks() -> None:
    expires = unhang.expires
    for _ in range(_LOOPS):
        with expires(after=AFTER, scope="step"):
            pass


def _empties() -> None:
    for _ in range(_LOOPS):
        with Empty():
            pass


def _serve(*, learn: bool) -> None:
    """Measure a burst of each way for every line that is read."""
    unhang.configure(SharedTimerClient._over(Alone(), time.monotonic_ns, learn=learn))
    heart = unhang.heartbeat(AFTER, "heart")
    beat = heart.beat

    def beats() -> None:
        for _ in range(_LOOPS):
            beat()

    for _ in sys.stdin:
        print(json.dumps([_took(burst) for burst in (_blocks, beats, _empties)]), flush=True)


def _took(burst: Callable[[], None]) -> float:
    began = time.perf_counter()
    burst()
    return (time.perf_counter() - began) / _LOOPS * 1e6


def _start(*, plain: bool, learn: bool) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != PURE} | ({PURE: "1"} if plain else {})
    command = [sys.executable, __file__, "--serve", *(["--learn"] if learn else [])]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
    )


def _ask(process: subprocess.Popen[str]) -> list[float]:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - for the type checker
    process.stdin.write("\n")
    found: list[float] = json.loads(process.stdout.readline())
    return found


def main() -> None:
    """Measure all of them in turns."""
    quick = section_arguments(__doc__).quick
    keys = [(library, learn) for library in ("unhang", PLAIN) for learn in (False, True)]
    processes = {key: _start(plain=key[0] == PLAIN, learn=key[1]) for key in keys}
    rounds = [
        {key: _ask(process) for key, process in processes.items()} for _ in range(_ROUNDS_QUICK if quick else _ROUNDS)
    ]
    for process in processes.values():
        process.communicate()
    rows = []
    for library in ("unhang", PLAIN):
        for index, way in enumerate(_WAYS):
            figures = {learn: [turn[library, learn][index] for turn in rounds] for learn in (False, True)}
            without, with_ = statistics.median(figures[False]), statistics.median(figures[True])
            rows.append({"library": library, "way": way, "without": without, "with": with_})
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        _serve(learn="--learn" in sys.argv)
    else:
        main()
