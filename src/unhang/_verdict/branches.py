"""Where the stacks of workers part that run the same program."""

from __future__ import annotations

from collections.abc import Sequence

from unhang.report.frames import is_library
from unhang.report.model import Frame, Worker


def branch(worker: Worker, workers: Sequence[Worker]) -> str | None:
    """Where this worker's stack parts from the others' first; None if they do not, or only within one call.

    A collective of several steps has its ranks in different lines of the same function. Only another function, called
    from another line of the program, in another file, is another branch.
    """
    stacks = [_outermost_first(other) for other in workers]
    if not all(stacks):
        return None
    depth = _common_depth(stacks)
    if not all(len(stack) > depth + 1 for stack in stacks):
        return None
    parting, called = [stack[depth] for stack in stacks], [stack[depth + 1] for stack in stacks]
    if len({(frame.file, frame.function) for frame in parting}) != 1 or len({frame.function for frame in called}) == 1:
        return None
    if is_library(parting[0].file) or any(frame.file == parting[0].file for frame in called):
        return None
    mine = _outermost_first(worker)
    return f"{mine[depth].file}:{mine[depth].line} ({mine[depth + 1].function})"


def _common_depth(stacks: Sequence[Sequence[Frame]]) -> int:
    depth = 0
    while all(len(stack) > depth for stack in stacks):
        if len({(stack[depth].file, stack[depth].line) for stack in stacks}) != 1:
            break
        depth += 1
    return depth


def _outermost_first(worker: Worker) -> list[Frame]:
    if worker.evidence is None or not worker.evidence.threads:
        return []
    return [frame for frame in reversed(worker.evidence.threads[0].frames) if not frame.native]
