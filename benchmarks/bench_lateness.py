"""From the deadline to the worker's death, as its parent sees it: prints JSON, a list of seconds for each server.

Servers run at their default intervals, each in a process of its own. Workers are children of a small process,
so that little is left to do when they die. Beside it, how late a bare ``time.sleep`` returns. The watchdog of shared
timers is measured without evidence beside the others, and by itself as it comes, with one worker at a time.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import tempfile

from bench_channel import KINDS, SHARED, Channel, section_arguments
from bench_child import Child
from bench_hang import Sleeper, deaths, serve_as_is

AS_IT_COMES = "unhang shared, with evidence"
_KINDS = {**{f"unhang {kind}": kind for kind in KINDS}, "unhang shared, without evidence": SHARED}
_AT_ONCE = 3
# So many times fewer workers with evidence: they are not in batches.
_LESS = 3
_TORCH_SAMPLES = 5
_TORCH_FIFO_TURN = 10.0
# Seconds behind the deadline after which a worker counts as not killed.
_CAP = 12.0
_QUICK_CAP = 2.0


def _ours(directory: str, count: int) -> dict[str, list[float]]:
    """Workers of all servers in batches, and the sleepers next to them."""
    late: dict[str, list[float]] = {name: [] for name in _KINDS}
    channels = [Channel("unhang", kind, directory) for kind in _KINDS.values()]
    names = list(_KINDS) * _AT_ONCE
    with contextlib.ExitStack() as stack:
        for channel in channels:
            stack.enter_context(Child(serve_as_is, channel)).conn.recv()
        sleepers = [Sleeper(stack) for _ in range(2)]
        while len(late[names[0]]) < count:
            batch = channels * _AT_ONCE
            for name, death in zip(names, deaths(batch, [0.0] * len(batch), _CAP), strict=True):
                late[name].append(death.late)
        bare = [seconds for sleeper in sleepers for seconds in sleeper.late()]
    return {**late, AS_IT_COMES: _with_evidence(directory, count // _LESS), "bare sleep": bare}


def _with_evidence(directory: str, count: int) -> list[float]:
    """Workers one by one: what several at a time would take is in the section on evidence."""
    channel = Channel("unhang", SHARED, directory, evidence=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(Child(serve_as_is, channel)).conn.recv()
        return [deaths([channel], [0.0], _CAP)[0].late for _ in range(count)]


def _torchs(directory: str, samples: int, cap: float) -> dict[str, list[float]]:
    """All samples at once, since most of it is waiting.

    The server on the named pipe kills itself behind its first kill, so each sample has its own. It looks every
    ten seconds, counted from the first request, and the timers are spread over that time as far as the cap
    lets them be killed at all. The queue's server is the same for all: it looks when a request comes, or a
    minute after the last one.
    """
    queue = Channel("torch", "queue", directory)
    fifos = [Channel("torch", "FIFO", directory) for _ in range(samples)]
    turn = _TORCH_FIFO_TURN if cap > _TORCH_FIFO_TURN else 0.0
    phases = [0.0] * samples + [turn * place / samples for place in range(samples)]
    with contextlib.ExitStack() as stack:
        for channel in (queue, *fifos):
            stack.enter_context(Child(serve_as_is, channel)).conn.recv()
        late = [death.late for death in deaths([queue] * samples + fifos, phases, cap)]
    return {"torch queue": late[:samples], "torch FIFO": late[samples:]}


def main() -> None:
    """Measure one library."""
    arguments = section_arguments(__doc__)
    cap = _QUICK_CAP if arguments.quick else _CAP
    with tempfile.TemporaryDirectory() as directory:
        if "torch" in arguments.libraries:
            late = _torchs(directory, 2 if arguments.quick else _TORCH_SAMPLES, cap)
        else:
            late = _ours(directory, 30 if arguments.quick else 300)
    finite = {name: [None if value == math.inf else value for value in values] for name, values in late.items()}
    json.dump({"cap": cap, "late": finite}, sys.stdout)


if __name__ == "__main__":
    main()
