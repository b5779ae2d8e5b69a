"""A report as text: what `unhang run` prints."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

from unhang.report import about, words
from unhang.report.frames import is_library, is_users, telling_thread, user_frame
from unhang.report.headline import expires_in, headline, how
from unhang.report.model import Departed, Evidence, Frame, HangClass, Report, Sure, Worker

__all__ = ["headline", "render"]

MOST_LINES = 20
_WIDTH = 118
_MOST_GROUPS = 3
_MOST_FRAMES = 7
# Of a group: who, the facts, the call that it is in, the user's line.
_LEAST_LINES = 4
# From so much room on the facts may have a second line.
_ROOMY = 6
# The directory that a module is imported from.
_ROOT = re.compile(r"^.*(?:/(?:site|dist)-packages/|/python\d[^/]*/)")
# What stands before a line, so that the eye finds it.
_LABEL = "{:<9}".format


def render(report: Report) -> str:
    """The report as at most twenty lines, the headline first; the others have at most 118 characters.

    No colours, no control characters; no line break at the end.
    """
    parts = about.cast(report)
    top = [words.clean(report.headline, 240) or headline(report)]
    top += _rest([_about(report), *_why(report), *_departed("culprit:", parts.gone)])
    accused = parts.culprits or parts.suspects or parts.victims
    bottom = _rest(
        [
            *([] if accused is parts.victims else _folded("waiting:", parts.victims, most=2)),
            *([] if accused is parts.suspects else _folded("also:", parts.suspects, most=2)),
            *_folded("others:", parts.others, most=1),
            *_progressing(report.progressing),
            *_departed("gone:", [each for each in report.departed if each not in parts.gone]),
            *_outcomes(report.workers, parts.culprits),
            *_left_out(report),
        ]
    )
    middle = _rest(_detailed(report, _label(report, parts), accused, MOST_LINES - len(top) - len(bottom)))
    return "\n".join([*top, *middle, *bottom][:MOST_LINES])


def _label(report: Report, parts: about.Cast) -> str:
    """What those are called that are told of at length; who has not expired may finish, and is only late."""
    if report.kind == "pretimeout" and (parts.culprits or parts.suspects):
        return "late:"
    return "culprit:" if parts.culprits else "stuck:" if parts.suspects else "waiting:"


def _rest(lines: Iterable[str]) -> list[str]:
    return [line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…" for line in lines]


def _wrapped(text: str, indent: int) -> list[str]:
    """A text on at most two lines, the second one indented."""
    return textwrap.wrap(
        text, _WIDTH, subsequent_indent=" " * indent, max_lines=2, placeholder="…", break_on_hyphens=False
    )


def _about(report: Report) -> str:
    """Which incident."""
    found = [
        f"job {words.clean(report.job, 40)}" if report.job else "",
        f"on {words.clean(report.host, 40)}" if report.host else "",
        words.moment(report.time),
        f"report {words.clean(report.id, 40)}",
    ]
    return ", ".join(each for each in found if each)


def _why(report: Report) -> list[str]:
    """The verdict; there is none about a worker that is late, and nobody is beside it."""
    verdict = report.verdict
    if report.kind == "pretimeout" and len(report.workers) == 1 and verdict.sure is not Sure.CANNOT_TELL:
        return []
    reason = words.clean(verdict.why, 240)
    return _wrapped(f"{_LABEL('verdict:')}{verdict.sure}{': ' * bool(reason)}{reason}", len(_LABEL("")))


def _detailed(report: Report, label: str, workers: Sequence[Worker], room: int) -> list[str]:
    """Those that matter, with their stacks, in at most ``room`` lines."""
    groups = about.grouped(workers, about.site)
    shown = groups[: max(1, min(_MOST_GROUPS, (room - 1) // _LEAST_LINES))]
    left = [worker for group in groups[len(shown) :] for worker in group]
    room -= bool(left)
    lines: list[str] = []
    for group in shown:
        lines += _group(report, label, group, room // len(shown))
    return [*lines, f"{_LABEL('')}and elsewhere {words.who(left)}"] if left else lines


def _group(report: Report, label: str, group: Sequence[Worker], room: int) -> list[str]:
    """Workers at one place: who, how, the facts, the stack."""
    first = group[0]
    evidence = first.evidence
    head = f"{_LABEL(label)}{_identity(report, group)} {_inside(report, first)}"
    if evidence is None:
        nobody = all(worker.evidence is None for worker in report.workers)
        return [head, f"  not looked at{' (evidence 0, or none in time)' * nobody}"]
    lines = [f"{head}: {evidence.hang}", *_facts(evidence, 2 if room >= _ROOMY else 1)]
    return lines + _stack(first, min(_MOST_FRAMES, room - len(lines)))


def _facts(evidence: Evidence, most: int) -> list[str]:
    """What the class rests on, as many whole facts as ``most`` lines hold; why there are no more, if it is unknown."""
    facts = list(evidence.facts[:6])
    if evidence.hang is HangClass.UNKNOWN and evidence.without and any(thread.frames for thread in evidence.threads):
        facts.append(f"less is known: {evidence.without[0]}")
    lines: list[str] = []
    told = ""
    for fact in facts:
        more = f"{told}; {words.clean(fact, 200)}" if told else f"  {words.clean(fact, 200)}"
        wrapped = textwrap.wrap(more, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        if lines and len(wrapped) > most:
            continue
        told, lines = more, _cut(wrapped, most)
    return lines


def _cut(lines: list[str], most: int) -> list[str]:
    """The first lines; that more was there is marked."""
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][: _WIDTH - 1]}…"]


def _identity(report: Report, group: Sequence[Worker]) -> str:
    """Rank and pid; the host, if it is not the watchdog's."""
    hosts = sorted({worker.host for worker in group if worker.host})
    hosts = [] if hosts == [report.host] else hosts
    where = [f"on {words.clean(hosts[0], 40)}" if len(hosts) == 1 else f"on {len(hosts)} hosts"] if hosts else []
    if all(worker.rank is None for worker in group):
        return " ".join([words.who(group), *where])
    pids = f"pid{'s' if len(group) > 1 else ''} {words.ranges((worker.pid for worker in group), 4)}"
    return f"{words.who(group)} ({', '.join([pids, *where])})"


def _inside(report: Report, worker: Worker) -> str:
    """The block that a worker is in, for how long, and for how long it may be."""
    block = about.block_of(worker)
    if block is None:
        return words.idle(worker)
    limit = f"timeout {words.seconds(block.after)}"
    if worker.armed > len(worker.blocks):
        limit += f", one of {worker.armed:,} armed timers"
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
    spot = words.spot(frame)
    if is_library(frame.file):
        spot = _ROOT.sub("", spot) if _ROOT.search(spot) else spot.rpartition("/")[2]
    call = f"{words.clean_path(spot, 56)} {function}"
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
        return f"{words.idle(worker)}{': ' * bool(state)}{state}"
    spent = words.seconds(about.running(worker, block))
    return f"in {words.quoted(block.scope)} for {spent}{': ' * bool(state)}{state}"


def _departed(label: str, some: Sequence[Departed]) -> list[str]:
    """One line for all that were gone, more about the last."""
    if not some:
        return []
    more = f", and {words.who(some[1:])}" if len(some) > 1 else ""
    return [f"{_LABEL(label)}{words.who_with_pid(some[0])} {how_gone(some[0])}{more}"]


def how_gone(worker: Departed) -> str:
    """How a worker ended, and when: ``ended in 'load' with exit code 1, 12 s before the first expiry``."""
    when = f"{words.seconds(abs(worker.at))} {'before' if worker.at <= 0 else 'after'} the first expiry"
    block = about.block_of(worker)
    inside = f" in {words.quoted(block.scope)}" if block else ""
    if worker.by_unhang:
        exit_ = words.clean(worker.exit.removesuffix(", by unhang"), 60)
        return f"was ended by unhang{inside}{f' ({exit_})' * bool(exit_)}, {when}"
    how_ = words.ending(worker.exit)
    return f"ended{inside}{f' {how_}' if how_ else ', how is not known'}, {when}"


def _outcomes(workers: Sequence[Worker], culprits: Sequence[Worker]) -> list[str]:
    """What became of the workers, of a lone one with the steps; and which culprits were let be."""
    done = [worker for worker in workers if worker.outcome not in ("", "pending") or worker.exit]
    if not done:
        return []
    groups: dict[str, list[Worker]] = {}
    for worker in done:
        exit_ = f" ({words.clean(worker.exit, 40)})" if worker.exit else ""
        groups.setdefault(f"{words.clean(worker.outcome, 20) or 'left alone, ended'}{exit_}", []).append(worker)
    line = "; ".join(f"{words.who(group)} {outcome}" for outcome, group in list(groups.items())[:4])
    steps = [f"{words.clean(step.what, 20)} at {words.seconds(step.at)}" for step in done[0].steps[-5:]]
    if len(done) == 1 and steps:
        line += f": {', '.join(steps)}"
    if let_be := [worker for worker in culprits if not (worker.outcome or worker.exit or worker.expired)]:
        line += f"; {words.who(let_be)} left alone: no timer of {'it' if len(let_be) == 1 else 'them'} has expired"
    return _wrapped(f"{_LABEL('outcome:')}{line}", len(_LABEL("")))


def _progressing(count: int) -> list[str]:
    return [f"{_LABEL('others:')}{count:,} more {'makes' if count == 1 else 'make'} progress"] if count > 0 else []


def _left_out(report: Report) -> list[str]:
    if not report.omitted:
        return []
    return [f"{_LABEL('omitted:')}{'; '.join(words.clean(each, 80) for each in report.omitted[:4])}"]
