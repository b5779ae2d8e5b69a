"""A report as text: what `unhang run` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unhang.report import about, words
from unhang.report.frames import is_users, telling_thread, user_frame
from unhang.report.headline import expires_in, headline, how
from unhang.report.model import Departed, Frame, Report, Sure, Worker

__all__ = ["headline", "render"]

MOST_LINES = 20
_WIDTH = 118
_MOST_GROUPS = 3
_MOST_FRAMES = 7
# Of a group: who, the facts, the call that it is in, the user's line.
_LEAST_LINES = 4
# What stands before a line, so that the eye finds it.
_LABEL = "{:<9}".format


def render(report: Report) -> str:
    """The report as at most twenty lines, the headline first; the others have at most 118 characters.

    No colours, no control characters; no line break at the end.
    """
    parts = about.cast(report)
    top = [words.clean(report.headline, 240) or headline(report)]
    top += _rest([_about(report), _why(report), *_departed("culprit:", parts.gone)])
    accused = parts.culprits or parts.suspects or parts.victims
    bottom = _rest(
        [
            *([] if accused is parts.victims else _folded("waiting:", parts.victims, most=2)),
            *([] if accused is parts.suspects else _folded("also:", parts.suspects, most=2)),
            *_folded("others:", parts.others, most=1),
            *([f"{_LABEL('others:')}{report.progressing} more make progress"] if report.progressing > 0 else []),
            *_departed("gone:", [each for each in report.departed if each not in parts.gone]),
            *_outcomes(report.workers),
            *_left_out(report),
        ]
    )
    label = "culprit:" if parts.culprits else "stuck:" if parts.suspects else "waiting:"
    middle = _rest(_detailed(report, label, accused, MOST_LINES - len(top) - len(bottom)))
    return "\n".join([*top, *middle, *bottom][:MOST_LINES])


def _rest(lines: Iterable[str]) -> list[str]:
    return [line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…" for line in lines]


def _about(report: Report) -> str:
    """Which incident."""
    found = [
        f"job {words.clean(report.job, 40)}" if report.job else "",
        f"on {words.clean(report.host, 40)}" if report.host else "",
        words.moment(report.time),
        f"report {words.clean(report.id, 40)}",
    ]
    return ", ".join(each for each in found if each)


def _why(report: Report) -> str:
    verdict = report.verdict
    reason = words.clean(verdict.why, 240)
    if verdict.sure is Sure.CANNOT_TELL:
        return f"{_LABEL('verdict:')}can't tell{': ' * bool(reason)}{reason}"
    return f"{_LABEL('verdict:')}{verdict.sure}{': ' * bool(reason)}{reason}"


def _detailed(report: Report, label: str, workers: Sequence[Worker], room: int) -> list[str]:
    """Those that matter, with their stacks, in at most ``room`` lines."""
    groups = about.grouped(workers, about.site)
    shown = groups[: max(1, min(_MOST_GROUPS, (room - 1) // _LEAST_LINES))]
    left = [worker for group in groups[len(shown) :] for worker in group]
    room -= bool(left)
    lines: list[str] = []
    for group in shown:
        lines += _group(report, label, group, min(_MOST_FRAMES, room // len(shown) - 2))
    return [*lines, f"{_LABEL('')}and elsewhere {words.who(left)}"] if left else lines


def _group(report: Report, label: str, group: Sequence[Worker], most: int) -> list[str]:
    """Workers at one place: who, how, the facts, the stack in at most ``most`` lines."""
    first = group[0]
    evidence = first.evidence
    head = f"{_LABEL(label)}{_identity(group)} {_inside(report, first)}"
    if evidence is None:
        return [head, "  nobody looked at it"]
    lines = [f"{head}: {evidence.hang}"]
    if facts := "; ".join(words.clean(fact, 100) for fact in evidence.facts[:6]):
        lines.append(f"  {facts}")
    return lines + _stack(first, most)


def _identity(group: Sequence[Worker]) -> str:
    """Rank, pid and host."""
    hosts = sorted({worker.host for worker in group if worker.host})
    where = [f"on {words.clean(hosts[0], 40)}" if len(hosts) == 1 else f"on {len(hosts)} hosts"] if hosts else []
    if all(worker.rank is None for worker in group):
        return " ".join([words.who(group), *where])
    pids = f"pid{'s' if len(group) > 1 else ''} {words.ranges((worker.pid for worker in group), 4)}"
    return f"{words.who(group)} ({', '.join([pids, *where])})"


def _inside(report: Report, worker: Worker) -> str:
    """The block that a worker is in, for how long, and for how long it may be."""
    block = about.block_of(worker)
    if block is None:
        return f"in no block, idle for {words.seconds(worker.idle)}"
    limit = f"timeout {words.seconds(block.after)}"
    if report.kind == "pretimeout":
        limit += f", {expires_in(worker, block)}"
    return f"in {words.quoted(block.scope)} for {words.seconds(about.running(worker, block))} ({limit})"


def _stack(worker: Worker, most: int) -> list[str]:
    """The call that it is in, then the user's calls, the innermost first and marked; libraries' calls are not told."""
    thread = telling_thread(worker.evidence)
    chosen = user_frame(thread) if thread else None
    if thread is None or chosen is None:
        reasons = worker.evidence.without if worker.evidence else ()
        return [f"  no stack: {words.clean(next(iter(reasons), 'nobody knows why'), 100)}"]
    lines = [] if thread.frames[0] is chosen else [f"  in {_call(thread.frames[0])}"]
    lines.append(f"  > {_call(chosen)}")
    outer = [frame for frame in thread.frames if is_users(frame) and frame is not chosen]
    room = max(0, most - len(lines))
    shown = outer if len(outer) <= room else outer[: max(0, room - 1)]
    lines += [f"    {_call(frame)}" for frame in shown]
    hidden = len(outer) - len(shown)
    return [*lines, f"    … called from {hidden} more"] if hidden and room else lines


def _call(frame: Frame) -> str:
    function = words.clean(frame.function, 40)
    if frame.native:
        return f"{function} ({words.clean_path(frame.file.rpartition('/')[2], 40)})"
    call = f"{words.clean_path(words.spot(frame), 56)} {function}"
    return f"{call}: {words.clean(frame.source, 80)}" if frame.source else call


def _folded(label: str, workers: Sequence[Worker], most: int) -> list[str]:
    """A line for those of one place; for all that are left one line."""
    groups = about.grouped(workers, about.site)
    if not groups:
        return []
    shown = groups if len(groups) <= most else groups[: most - 1]
    lines = [f"{_LABEL(label)}{words.who(group)} {_briefly(group[0])}" for group in shown]
    left = [worker for group in groups[len(shown) :] for worker in group]
    return [*lines, f"{_LABEL(label)}{words.who(left)} at {len(groups) - len(shown)} places"] if left else lines


def _briefly(worker: Worker) -> str:
    block = about.block_of(worker)
    state = how(worker)
    if block is None:
        return f"in no block, idle for {words.seconds(worker.idle)}{': ' * bool(state)}{state}"
    spent = words.seconds(about.running(worker, block))
    return f"in {words.quoted(block.scope)} for {spent}{': ' * bool(state)}{state}"


def _departed(label: str, some: Sequence[Departed]) -> list[str]:
    """One line for all that were gone, more about the last."""
    if not some:
        return []
    more = f", and {words.who(some[1:])}" if len(some) > 1 else ""
    return [f"{_LABEL(label)}{words.who_with_pid(some[0])} {how_gone(some[0])}{more}"]


def how_gone(worker: Departed) -> str:
    """When a worker left and how it ended: ``ended 12 s before the first expiry in 'load': exit code 1``."""
    when = f"{words.seconds(abs(worker.at))} {'before' if worker.at <= 0 else 'after'} the first expiry"
    block = about.block_of(worker)
    inside = f" in {words.quoted(block.scope)}" if block else ""
    return f"ended {when}{inside}: {words.clean(worker.exit, 60) or 'how is not known'}"


def _outcomes(workers: Sequence[Worker]) -> list[str]:
    """What became of the workers, in one line; of a lone one with the steps."""
    done = [worker for worker in workers if worker.outcome not in ("", "pending") or worker.exit]
    if not done:
        return []
    groups: dict[str, list[Worker]] = {}
    for worker in done:
        exit_ = f" ({words.clean(worker.exit, 40)})" if worker.exit else ""
        groups.setdefault(f"{words.clean(worker.outcome, 20) or 'ended'}{exit_}", []).append(worker)
    line = "; ".join(f"{outcome} {words.who(group)}" for outcome, group in list(groups.items())[:4])
    steps = [f"{words.clean(step.what, 20)} at {words.seconds(step.at)}" for step in done[0].steps[-5:]]
    return [f"{_LABEL('outcome:')}{line}" + (f": {', '.join(steps)}" if len(done) == 1 and steps else "")]


def _left_out(report: Report) -> list[str]:
    if not report.omitted:
        return []
    return [f"{_LABEL('omitted:')}{'; '.join(words.clean(each, 80) for each in report.omitted[:4])}"]
