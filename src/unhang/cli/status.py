"""``unhang status``: a watchdog and its workers at one look, for scripts and people."""

from __future__ import annotations

import sys
import time

import click
from rich.console import Console
from rich.text import Text

from unhang._platform.limits import raise_file_limit
from unhang.cli import options
from unhang.cli.output import read_by_somebody
from unhang.cli.quantities import Seconds
from unhang.observe.document import document, encode
from unhang.observe.find import find_watchdog
from unhang.observe.picture import Picture
from unhang.observe.screen_plain import plain
from unhang.observe.screen_threads import count_threads
from unhang.observe.viewing import View

# Seconds between the two looks that a rate needs; a watchdog answers as often as that.
_FOR_RATES = 0.5


@click.command()
@options.viewed
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="UNHANG_STATUS_JSON",
    show_envvar=True,
    help="Print one JSON document, or with --watch one on each line.",
)
@click.option(
    "--watch",
    type=Seconds(0.5, 86400),
    is_flag=False,
    flag_value="2s",
    envvar="UNHANG_STATUS_WATCH",
    show_envvar=True,
    metavar="[DURATION]",
    help="Go on, with a look that often; every two if no time is given.",
)
def status(address: str | None, as_json: bool, watch: float | None) -> None:
    """Show who a watchdog watches, in which block each worker is, for how long, and who stands out.

    \b
        $ unhang status
        $ unhang status --json | jq '.workers[] | select(.idle > 60) | .pid'
        $ unhang status --json --watch 10 >> status.jsonl

    Rates are those of half a second, or between two looks of --watch. Exit status: 0, or 125 if there is no watchdog to
    look at, or it is gone.
    """
    raise_file_limit()
    view = View(find_watchdog(address))
    try:
        with read_by_somebody():
            _show(view, watch, as_json=as_json)
    except KeyboardInterrupt:
        sys.exit(0 if watch is not None else 130)
    finally:
        view.close()


def _show(view: View, watch: float | None, *, as_json: bool) -> None:
    picture = view.look()
    if picture.rows:
        time.sleep(_FOR_RATES)
        picture = view.look()
    _print(picture, as_json=as_json)
    while watch is not None:
        time.sleep(watch)
        if not as_json:
            click.echo()
        _print(view.look(), as_json=as_json)


def _print(picture: Picture, *, as_json: bool) -> None:
    if as_json:
        click.echo(encode(document(picture)))
        return
    here = {"", picture.watchdog.host}
    threads = count_threads(row.info.pid for row in picture.rows if row.info.host in here)
    console = Console(highlight=False, markup=False, emoji=False)
    width = console.width if console.is_terminal else None
    with console.capture() as captured:
        console.print(Text("\n").join(plain(picture, threads, width)), soft_wrap=True)
    click.echo(captured.get(), nl=False)
