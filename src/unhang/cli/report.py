"""``unhang report``: a report again, as text, page or JSON."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from unhang.cli.output import read_by_somebody
from unhang.report import html, store, text
from unhang.report.load import load
from unhang.report.model import encode


@click.command()
@click.argument("file", required=False)
@click.option(
    "--json", "as_json", is_flag=True, envvar="UNHANG_REPORT_JSON", show_envvar=True, help="Print it as JSON."
)
@click.option(
    "--html",
    "as_html",
    is_flag=True,
    envvar="UNHANG_REPORT_HTML",
    show_envvar=True,
    help="Print it as a page for a browser, with a timeline of all workers and all stacks. It needs nothing else.",
)
@click.option(
    "--dir",
    "directory",
    envvar="UNHANG_REPORT_DIR",
    show_envvar=True,
    metavar="DIR",
    help="Where to look for the newest report. Default: $XDG_STATE_HOME/unhang/reports, or "
    "~/.local/state/unhang/reports.",
)
def report(file: str | None, as_json: bool, as_html: bool, directory: str | None) -> None:
    """Show the report in FILE, or the newest one.

    \b
        unhang report
        unhang report --html > report.html

    A report says which worker hung, where, and how. `unhang run` and `unhang serve` write them. Exit status: 0, or
    125 if there is no such report.
    """
    if as_json and as_html:
        raise click.UsageError("--json and --html are two forms of one report; choose one")
    path = file or _newest(directory or store.default_directory())
    loaded = load(path)
    with read_by_somebody():
        if as_json:
            _print(msgspec.json.format(encode(loaded), indent=2).decode())
        elif as_html:
            _print(html.render(loaded))
        else:
            _print(f"{text.render(loaded)}\nreport: {Path(path).absolute()}")


def _newest(directory: str) -> str:
    if directory == "none":
        raise click.ClickException(
            "UNHANG_REPORT_DIR is none: no reports are kept; name a file, or a directory with --dir"
        )
    path = store.latest(directory)
    if path is None:
        raise click.ClickException(f"there is no report in {directory}; name a file, or a directory with --dir")
    return path


def _print(document: str) -> None:
    """Print it as a page or JSON must be; on a terminal, in what it can show."""
    if sys.stdout is None:
        return  # it was closed before this began
    encoding = (sys.stdout.encoding or "utf-8") if sys.stdout.isatty() else "utf-8"
    click.echo(document.encode(encoding, "backslashreplace"))
