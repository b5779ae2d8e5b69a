"""The one line that says who hangs where and how."""

from __future__ import annotations

from collections.abc import Sequence

from unhang.report import about, words
from unhang.report.model import Block, Departed, Report, Worker

_LONGEST = 240


def headline(report: Report) -> str:
    """Compose the headline from the rest of the report; its own ``headline`` is not looked at.

    One line without control characters, at most 240 characters.
    """
    parts = about.cast(report)
    if parts.culprits:
        line = _stuck(report, parts.culprits) + _waiting(parts.victims, len(parts.culprits))
    elif parts.gone:
        line = _gone(parts.gone, parts.victims or parts.suspects)
    elif parts.suspects:
        undecided = len(parts.suspects) > 1 and report.kind != "pretimeout"
        line = _stuck(report, parts.suspects) + (_NOBODY if undecided else "")
    else:
        line = f"nothing hangs; {words.count(report.workers)} looked at"
    return words.clean(line, _LONGEST)


_NOBODY = "; who is to blame can't be told"


def _stuck(report: Report, workers: Sequence[Worker]) -> str:
    """Who is where, for how long, how."""
    first = workers[0]
    name = words.who_with_pid(first) if len(workers) == 1 else words.who(workers)
    same = len({about.site(worker) for worker in workers}) == 1
    line = f"{name} {_is_in(report, workers)}"
    if details := how(first):
        line += f": {details}" + ("" if same else f" ({words.who([first])})")
    return line


def _is_in(report: Report, workers: Sequence[Worker]) -> str:
    """What they do with their block, as a verb."""
    several = len(workers) > 1
    first = workers[0]
    block = about.block_of(first)
    if block is None:
        return f"{'are' if several else 'is'} {words.idle(first)}"
    named = words.quoted(block.scope)
    if len({about.site(worker).scope for worker in workers}) > 1:
        named = "different blocks"
    spent = words.seconds(about.running(first, block))
    if report.kind == "pretimeout":
        return f"{'are' if several else 'is'} in {named} for {spent}, {expires_in(first, block)}"
    if all(worker.outcome == "spared" for worker in workers):
        return f"hung in {named} for {spent} and got over it"
    if not block.expired:
        return f"{'are' if several else 'is'} in {named} for {spent}"
    return f"{'hang' if several else 'hangs'} in {named} for {spent}"


def expires_in(worker: Worker, block: Block) -> str:
    """How long the block still had when the worker was looked at."""
    return f"expires in {words.seconds(max(0.0, about.deadline(block) - about.seen_at(worker)))}"


def how(worker: Worker) -> str:
    """The class of the hang and the user's line, as far as they are known."""
    found = [] if worker.evidence is None else [str(worker.evidence.hang)]
    frame = about.frame_of(worker)
    return ", ".join([*found, words.place(frame)] if frame else found)


def _waiting(victims: Sequence[Worker], culprits: int) -> str:
    if not victims:
        return ""
    return f"; {words.count(victims)} wait{'s' if len(victims) == 1 else ''} for {'it' if culprits == 1 else 'them'}"


def _gone(gone: Sequence[Departed], victims: Sequence[Worker]) -> str:
    """Who had ended, and who waits for it where."""
    name = words.who_with_pid(gone[0]) if len(gone) == 1 else words.who(gone)
    line = f"{name} {_has_ended(gone)}"
    block = about.block_of(victims[0]) if victims else None
    if block is None:
        return line + _waiting(victims, len(gone))
    return f"{line}{_waiting(victims, len(gone))} in {words.quoted(block.scope)}: {how(victims[0])}"


def _has_ended(gone: Sequence[Departed]) -> str:
    """How they ended, as a verb."""
    several = len(gone) > 1
    exits = list(dict.fromkeys(words.clean(worker.exit, 60) or "nobody knows how" for worker in gone))
    how_ = words.ending(gone[0].exit)
    if len(exits) > 1 or not how_ or any(worker.by_unhang for worker in gone):
        return f"{'are' if several else 'is'} gone: {', '.join(exits[:3])}{', …' * (len(exits) > 3)}"
    if how_.startswith("by"):
        return f"{'were' if several else 'was'} ended {how_}, not by unhang"
    return f"{'have' if several else 'has'} ended {how_}"
