"""``unhang budgets``: how long blocks took, and what they should be given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unhang._core.budgets import START_UP, STEADY, Evidence, propose
from unhang._core.histogram import Durations, Histogram
from unhang._core.learned import MOST_SCOPES, FormatError, Learned
from unhang._core.memory import Memory
from unhang._core.texts import escaped
from unhang._worker.flags import says_no
from unhang._worker.learned import default_path
from unhang._worker.learned_file import read, reason
from unhang.cli.output import read_by_somebody
from unhang.cli.quantities import Number, Seconds
from unhang.observe.screen_words import duration as in_few_cells
from unhang.observe.screen_words import fit_scope
from unhang.report.words import number, quoted

_SECOND = 1e9
_WIDTH = 80
# What all columns but the scope take, with what is between them.
_FIGURES = 57
_NONE = "-"
# Before the scope, in the line of its first blocks.
_START_UP = "▸ "


@dataclass(frozen=True)
class Row:
    """What is known of a scope, and what follows; seconds.

    Attributes:
        scope: its name.
        start_up: whether it is about the first block of each process, or all the others.
        count: how many blocks.
        p50, p99, p999, longest: what so many of them did not exceed.
        budget: the timeout that was seen last; None if none was, and for first blocks, which share it.
        would_kill: how many of these blocks it would have killed.
        proposed: the budget that follows from them.
        proposed_would_kill: how many of them that would have killed.
        little: whether too little is known for more than the maximum, or something near it.
        killed: how many workers were killed in it; of both kinds together.
    """

    scope: str
    start_up: bool
    count: int
    p50: float
    p99: float
    p999: float
    longest: float
    budget: float | None
    would_kill: int | None
    proposed: float
    proposed_would_kill: int
    little: bool
    killed: int


@dataclass(frozen=True)
class _Bounds:
    """What the user asks for; nanoseconds."""

    minimum: int
    maximum: int
    startup: int
    margin: float
    target: float


@click.command()
@click.argument("file", required=False, envvar="UNHANG_LEARN")
@click.option(
    "--minimum",
    type=Seconds(0.001),
    default="1s",
    show_default=True,
    envvar="UNHANG_BUDGETS_MINIMUM",
    show_envvar=True,
    help="Propose nothing shorter.",
)
@click.option(
    "--maximum",
    type=Seconds(0.001),
    default="10m",
    show_default=True,
    envvar="UNHANG_BUDGETS_MAXIMUM",
    show_envvar=True,
    help="Propose nothing longer; and this, where too little is known.",
)
@click.option(
    "--startup",
    type=Seconds(0.001),
    envvar="UNHANG_BUDGETS_STARTUP",
    show_envvar=True,
    help="The maximum for the first block of each process. Default: as --maximum.",
)
@click.option(
    "--margin",
    type=Number(1, 1000),
    default=2.0,
    show_default=True,
    envvar="UNHANG_BUDGETS_MARGIN",
    show_envvar=True,
    help="How many times longer than what is to be expected a block may take.",
)
@click.option(
    "--target",
    type=Number(1e-12, 0.1),
    default=STEADY.rare,
    show_default=True,
    envvar="UNHANG_BUDGETS_TARGET",
    show_envvar=True,
    help="What is to be expected: the part of all blocks that may take longer than the budget without its margin.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="UNHANG_BUDGETS_JSON",
    show_envvar=True,
    help="Print it as JSON.",
)
def budgets(
    file: str | None,
    minimum: float,
    maximum: float,
    startup: float | None,
    margin: float,
    target: float,
    as_json: bool,
) -> None:
    """Show how long blocks took, what they may take now, and what they should be given.

    \b
        $ unhang run --learn learned.json -- python train.py
        $ unhang budgets learned.json --maximum 1800

    For each scope: how many blocks there were, what half of them, 99 % and 99.9 % did not exceed, the longest, the
    timeout that they have today and a proposed one, each with how many of these blocks it would have killed. The first
    block of each process stands in a line of its own. Default for FILE: UNHANG_LEARN, else learned.json where
    unhang.configure(learn=True) keeps it. Exit status: 0, or 125 if there is no such file.
    """
    most = maximum if startup is None else startup
    if minimum > min(maximum, most):
        raise click.UsageError("--minimum is above --maximum or --startup")
    bounds = _Bounds(_nanoseconds(minimum), _nanoseconds(maximum), _nanoseconds(most), margin, target)
    path = default_path() if says_no(file or "") else str(file)
    learned = _read(path)
    rows = [row for scope, memory in _by_use(learned) for row in _rows(scope, memory.durations, bounds)]
    with read_by_somebody():
        if as_json:
            scopes = [asdict(row) for row in rows]
            click.echo(json.dumps({"file": path, "dropped": learned.dropped, "budgets": scopes}, indent=2))
        else:
            _print(rows, learned, path)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * _SECOND)


def _read(path: str) -> Learned:
    try:
        return read(path)
    except FileNotFoundError as error:
        raise click.ClickException(f"there is no {path}: `unhang run --learn {path}` makes one") from error
    except (OSError, FormatError, ValueError) as error:
        raise click.ClickException(f"{path} is not used: {reason(error)}") from error


def _by_use(learned: Learned) -> list[tuple[str, Memory]]:
    """The scopes, the ones with the most blocks first."""
    return sorted(learned.scopes.items(), key=lambda item: (-item[1].durations.count, item[0]))


def _rows(scope: str, known: Durations, bounds: _Bounds) -> Iterator[Row]:
    steady = STEADY._replace(rare=bounds.target)
    # A start-up is to be as sure as it is by default, compared with a block.
    first = START_UP._replace(rare=min(0.1, bounds.target * START_UP.rare / STEADY.rare))
    if known.first.count:
        yield _row(scope, known.first, known, bounds, first, start_up=True)
    if known.steady.count or not known.first.count:
        yield _row(scope, known.steady, known, bounds, steady, start_up=False)


def _row(
    scope: str, blocks: Histogram, known: Durations, bounds: _Bounds, evidence: Evidence, *, start_up: bool
) -> Row:
    rounds = known.starts if start_up else known.rounds
    maximum = bounds.startup if start_up else bounds.maximum
    proposed = propose(
        blocks,
        bounds.minimum,
        maximum,
        bounds.margin,
        rounds=rounds,
        runs=None if start_up else known.starts,
        doubts=known.doubts,
        evidence=evidence,
    )
    p50, p99, p999 = (blocks.quantile(part) / _SECOND for part in (0.5, 0.99, 0.999))
    return Row(
        scope=scope,
        start_up=start_up,
        count=blocks.count,
        p50=p50,
        p99=p99,
        p999=p999,
        longest=blocks.longest / _SECOND,
        budget=known.budget / _SECOND if known.budget and not start_up else None,
        would_kill=blocks.above(known.budget) if known.budget and not start_up else None,
        proposed=proposed / _SECOND,
        proposed_would_kill=blocks.above(proposed),
        little=min(rounds, blocks.count) < evidence.enough or known.doubts > 0,
        killed=known.killed,
    )


def _print(rows: list[Row], learned: Learned, path: str) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    width = console.width if console.is_terminal else _WIDTH
    if not rows:
        click.echo(f"{escaped(path)} knows of no blocks yet")
        return
    with console.capture() as captured:  # it would end this itself if nobody reads it
        console.print(_table(rows, width), width=width, soft_wrap=False)
    click.echo(captured.get(), nl=False)
    for line in _notes(rows, learned):
        click.echo(line)


def _table(rows: list[Row], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("scope", no_wrap=True)
    for name in ("blocks", "p50", "p99", "p99.9", "max", "today", "kills", "proposed", "kills"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        mark = _START_UP if row.start_up else ""
        table.add_row(Text(mark + fit_scope(row.scope, max(8, width - _FIGURES) - len(mark))), *_cells(row))
    return table


def _cells(row: Row) -> list[Text]:
    times = [_short(each) for each in (row.p50, row.p99, row.p999, row.longest)]
    today = [_NONE, _NONE] if row.budget is None else [_short(row.budget), _compact(row.would_kill or 0)]
    proposed = [f"{_short(row.proposed)}{'*' if row.little else ''}", _compact(row.proposed_would_kill)]
    return [Text(each) for each in (_compact(row.count), *times, *today, *proposed)]


def _short(seconds: float) -> str:
    """A duration in few cells, also one that is far below a second."""
    if 0 < seconds < 1e-6:
        return "<1µs"
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if seconds * factor < 99.5:
            return f"{seconds * factor:.2g}{unit}"
    return in_few_cells(seconds)


def _compact(count: int) -> str:
    """A number in five cells at most."""
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 10 * factor:
            return f"{count / factor:.3g}{unit}"
    return str(count)


def _notes(rows: list[Row], learned: Learned) -> Iterator[str]:
    """What the table does not say by itself."""
    if any(row.start_up for row in rows):
        yield f"{_START_UP}the first block of each process, in which it starts up"
    if any(row.little for row in rows):
        yield "* little is known yet, or workers were killed of late: nearer to the maximum"
    for scope, killed in {row.scope: row.killed for row in rows if row.killed}.items():
        would = "that" if killed == 1 else "those"
        yield f"{killed:,} killed in {quoted(scope)}; how long {would} would have taken is not known"
    if learned.dropped:
        yield f"{number(learned.dropped, 'scope')} dropped: a file holds {MOST_SCOPES:,}"
