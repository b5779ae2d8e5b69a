"""What is shown instead of the table: the keys, and the stacks of one worker."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from rich.text import Text

from unhang.observe.screen_words import fit, fit_path
from unhang.report import words
from unhang.report.model import Frame, Report, Thread
from unhang.report.text import render

_HELP = """\
up, down, k, j        select a worker
PgUp, PgDn, Home, End a page up or down, the first, the last
t, Enter              stacks of the selected worker, now; it is not disturbed
s                     sort: nearest to expiry, idle, rate, rank, pid
/                     filter; Esc clears it
p                     stand still, and go on
q                     quit

A filter is some words. A worker is shown that has each of them: as a part of
the name of a block, of its host or job, or as its whole rank or pid.

!!  stands out: it does nothing while the others of its job go on; or they all
    wait, and it is elsewhere, or behind them. Or its deadline is over.
 !  its block has taken more than half of its time.

block        of its timers the nearest to expiry; +2: there are two more
time/budget  since it was armed or restarted, and its timeout
blk/s        how often its timers are armed or restarted, a second
idle         since it was seen to do that, or to disarm one
thr          threads of the process

A mark is a hint and no verdict: nobody is killed for it. Deadlines decide."""


def pane_lines(pane: str, stacks: Report | None, width: int) -> list[Text]:
    """The lines of a pane, each of ``width`` cells at most."""
    if pane == "help":
        return [Text(fit_kept(line, width)) for line in _HELP.splitlines()]
    if stacks is None:
        return [Text("they are being taken …", style="dim")]
    return [*_wrapped(render(stacks).splitlines(), width), Text(), *_threads(stacks, width)]


def fit_kept(line: str, width: int) -> str:
    """As `fit`, but spaces at the beginning stay."""
    indent = len(line) - len(line.lstrip())
    return " " * indent + fit(line, max(0, width - indent))


def _wrapped(lines: Iterable[str], width: int) -> list[Text]:
    """Long lines go on in the next one, indented."""
    wrapped: list[Text] = []
    for line in lines:
        parts = textwrap.wrap(line, max(20, width), subsequent_indent="      ", break_on_hyphens=False) or [""]
        style = "bold" if not wrapped or line.startswith("  >") else ""
        wrapped += [Text(part, style=style) for part in parts]
    return wrapped


def _threads(report: Report, width: int) -> list[Text]:
    """The whole stacks of all threads."""
    lines = []
    for worker in report.workers[:1]:
        if worker.evidence is None:
            continue
        for thread in worker.evidence.threads:
            lines.append(Text(fit(_thread(thread), width), style="bold"))
            lines += [Text(_frame(frame, width)) for frame in thread.frames]
            lines.append(Text())
        lines += [Text(fit(reason, width), style="dim") for reason in worker.evidence.without]
    return lines


def _thread(thread: Thread) -> str:
    found = [
        f"thread {words.clean(thread.name, 40) or thread.id}",
        f"id {thread.id}" if thread.name and thread.id else "",
        f"state {words.clean(thread.state, 4)}" if thread.state else "",
        words.clean(thread.syscall or thread.wchan, 40),
        "holds the GIL" if thread.holds_gil else "",
    ]
    return ", ".join(each for each in found if each)


def _frame(frame: Frame, width: int) -> str:
    function = fit(frame.function, max(8, width // 3))
    place = fit_path(words.spot(frame), max(8, width - len(function) - 4))
    return f"  {place}  {function}"
