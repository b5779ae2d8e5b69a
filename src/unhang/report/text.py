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
# Columns, where nobody says how many there are.
WIDTH = 80
# A line takes two at most, and what is folded is indented so far; under a label, to where its text begins.
_MOST_FOLDED = 2
_INDENT = 6
# Stands for a space at which no line is folded, in paths, lines of source and names.
_GLUE = "\N{NO-BREAK SPACE}"
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


def render(report: Report, width: int = WIDTH, *, lead: int | None = None) -> str:
    """The report as at most twenty lines, the headline first.

    Longer lines are folded, but for paths, lines of source and names, which stay whole. No colours, no control
    characters; no line break at the end.

    Args:
        report: the report.
        width: characters that a line may have; 40 or more.
        lead: characters that stand before the headline on its line, which is folded then; None: it stays one line, for
            whoever looks for it in a file.
    """
    parts = about.cast(report)
    top = _first(words.clean(report.headline, 240) or headline(report), width, lead)
    top += _rest([_about(report), *_why(report), *_departed("culprit:", parts.gone)], width)
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
        ],
        width,
    )
    room = MOST_LINES - len(top) - len(bottom)
    middle = _detailed(report, _label(report, parts), accused, room, width)[: max(0, room)]
    return "\n".join([*top, *middle, *bottom][:MOST_LINES]).replace(_GLUE, " ")


def _label(report: Report, parts: about.Cast) -> str:
    """What those are called that are told of at length; who has not expired may finish, and is only late."""
    if report.kind == "pretimeout" and (parts.culprits or parts.suspects):
        return "late:"
    return "culprit:" if parts.culprits else "stuck:" if parts.suspects else "waiting:"


def _first(line: str, width: int, lead: int | None) -> list[str]:
    """The headline, folded where something stands before it on its line."""
    if lead is None:
        return [line]
    folded = textwrap.wrap(
        line, width, initial_indent="." * lead, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
    )
    return [folded[0][lead:], *folded[1:]] if folded else [line]


def _rest(lines: Iterable[str], width: int) -> list[str]:
    return [piece for line in lines for piece in _folded_line(line, width)]


def _folded_line(line: str, width: int) -> list[str]:
    """A line on as many as it takes, two at most; all but the first are indented."""
    indent = _INDENT if line.startswith(" ") else len(_LABEL(""))
    text = line.lstrip(" ")
    pieces = textwrap.wrap(
        text,
        width,
        initial_indent=line[: len(line) - len(text)],
        subsequent_indent=" " * indent,
        max_lines=_MOST_FOLDED,
        placeholder="…",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [piece if len(piece) <= width else f"{piece[: width - 1]}…" for piece in pieces]


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
    return [f"{_LABEL('verdict:')}{verdict.sure}{': ' * bool(reason)}{reason}"]


def _detailed(report: Report, label: str, workers: Sequence[Worker], room: int, width: int) -> list[str]:
    """Those that matter, with their stacks, in at most ``room`` lines."""
    groups = about.grouped(workers, about.site)
    shown = groups[: max(1, min(_MOST_GROUPS, (room - 1) // _LEAST_LINES))]
    left = [worker for group in groups[len(shown) :] for worker in group]
    room -= bool(left)
    lines: list[str] = []
    for group in shown:
        lines += _group(report, label, group, room // len(shown), width)
    return [*lines, *_rest([f"{_LABEL('')}and elsewhere {words.who(left)}"], width)] if left else lines


def _group(report: Report, label: str, group: Sequence[Worker], room: int, width: int) -> list[str]:
    """Workers at one place: who, how, the facts, the stack."""
    first = group[0]
    evidence = first.evidence
    head = f"{_LABEL(label)}{_identity(report, group)} {_inside(report, first)}"
    if evidence is None:
        nobody = all(worker.evidence is None for worker in report.workers)
        return _rest([head, f"  not looked at{' (evidence 0, or none in time)' * nobody}"], width)
    lines = [*_rest([f"{head}: {evidence.hang}"], width), *_facts(evidence, 2 if room >= _ROOMY else 1, width)]
    return lines + _stack(first, room - len(lines), width)


def _facts(evidence: Evidence, most: int, width: int) -> list[str]:
    """What the class rests on, as many whole facts as ``most`` lines hold; why there are no more, if it is unknown."""
    facts = list(evidence.facts[:6])
    if evidence.hang is HangClass.UNKNOWN and evidence.without and any(thread.frames for thread in evidence.threads):
        facts.append(f"less is known: {evidence.without[0]}")
    lines: list[str] = []
    told = ""
    for fact in facts:
        more = f"{told}; {words.clean(fact, 200)}" if told else f"  {words.clean(fact, 200)}"
        wrapped = textwrap.wrap(more, width, subsequent_indent="  ", break_on_hyphens=False)
        if lines and len(wrapped) > most:
            continue
        told, lines = more, _cut(wrapped, most, width)
    return lines


def _cut(lines: list[str], most: int, width: int) -> list[str]:
    """The first lines; that more was there is marked."""
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][: width - 1]}…"]


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
    return f"in {_name(block.scope)} for {words.seconds(about.running(worker, block))} ({limit})"


def _name(scope: str) -> str:
    return words.quoted(scope).replace(" ", _GLUE)


def _stack(worker: Worker, most: int, width: int) -> list[str]:
    """The call that it is in, then the user's calls, the innermost first and marked; libraries' calls are not told."""
    thread = telling_thread(worker.evidence)
    chosen = user_frame(thread) if thread else None
    if thread is None or chosen is None:
        reasons = worker.evidence.without if worker.evidence else ()
        return _rest([f"  no stack: {words.clean(next(iter(reasons), 'nobody knows why'), 100)}"], width)
    lines = [] if thread.frames[0] is chosen else [f"  in {_call(thread.frames[0], width)}"]
    lines = _rest([*lines, f"  >{_GLUE}{_call(chosen, width)}"], width)
    outer = [frame for frame in thread.frames if is_users(frame) and frame is not chosen]
    calls = [_folded_line(f"    {_call(frame, width)}", width) for frame in outer[:_MOST_FRAMES]]
    most -= len(lines)
    if len(outer) > len(calls) or sum(map(len, calls)) > most:
        most -= 1  # for those that are hidden
    while calls and sum(map(len, calls)) > most:
        calls.pop()
    lines += [line for call in calls for line in call]
    hidden = len(outer) - len(calls)
    return [*lines, f"    … called from {hidden} more"] if hidden and most >= 0 else lines


def _call(frame: Frame, width: int) -> str:
    """A call, which is folded before its source, and nowhere else."""
    function = words.clean(frame.function, 40)
    if frame.native:
        return f"{function} ({words.clean_path(frame.file.rpartition('/')[2], 40)})"
    spot = words.spot(frame)
    if is_library(frame.file):
        spot = _ROOT.sub("", spot) if _ROOT.search(spot) else spot.rpartition("/")[2]
    path = words.clean_path(spot, 56).replace(" ", _GLUE)
    function = function.replace(" ", _GLUE)
    call = f"{path}{_GLUE if len(path) + len(function) < width - _INDENT else ' '}{function}"
    source = words.clean(frame.source, min(80, width - _INDENT)).replace(" ", _GLUE)
    return f"{call}: {source}" if frame.source else call


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
    return f"in {_name(block.scope)} for {spent}{': ' * bool(state)}{state}"


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
    inside = f" in {_name(block.scope)}" if block else ""
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
    return [f"{_LABEL('outcome:')}{line}"]


def _progressing(count: int) -> list[str]:
    return [f"{_LABEL('others:')}{count:,} more {'makes' if count == 1 else 'make'} progress"] if count > 0 else []


def _left_out(report: Report) -> list[str]:
    if not report.omitted:
        return []
    return [f"{_LABEL('omitted:')}{'; '.join(words.clean(each, 80) for each in report.omitted[:4])}"]
