"""``unhang report``: a report again, as text, page or JSON."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click
import msgspec

from unhang._core.texts import escaped
from unhang._platform.logs import terminal_width
from unhang.cli.output import read_by_somebody
from unhang.report import html, store, text, words
from unhang.report.jsons import encoded
from unhang.report.load import NotAReportError, load
from unhang.report.model import encode

_STDOUT = 1


@click.command()
@click.argument("which", required=False, metavar="[FILE|ID]")
@click.option(
    "--list",
    "as_list",
    is_flag=True,
    envvar="UNHANG_REPORT_LIST",
    show_envvar=True,
    help="List all reports, the newest first: time, id, job, headline.",
)
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
    help="Where reports are kept. Default: $XDG_STATE_HOME/unhang/reports, or ~/.local/state/unhang/reports.",
)
def report(which: str | None, as_list: bool, as_json: bool, as_html: bool, directory: str | None) -> None:
    """Show the report in FILE, that with an ID, or the newest one.

    \b
        unhang report
        unhang report c3a6844a
        unhang report --html > report.html
        unhang report --list

    A report says which worker hung, where, and how. `unhang run` and `unhang serve` write them, and name their ids; the
    beginning of an id is enough if no other one begins so. Exit status: 0, or 125 if there is no such report.
    """
    if as_html and (as_json or as_list):
        raise click.UsageError("--html has neither a --list nor --json; choose one")
    if as_list and which:
        raise click.UsageError("--list shows all reports; leave out the FILE or ID")
    if as_list:
        with read_by_somebody():
            _list(_kept_in(directory), as_json=as_json)
        return
    path = _path_of(which, directory) if which else _newest(_kept_in(directory))
    loaded = load(path)
    with read_by_somebody():
        if as_json:
            _print(msgspec.json.format(encode(loaded), indent=2).decode())
        elif as_html:
            _print(html.render(loaded))
        else:
            columns = terminal_width(_STDOUT)
            shown = text.render(loaded, columns or text.WIDTH, lead=None if columns is None else 0)
            _print(f"{shown}\nreport: {escaped(str(Path(path).absolute()))}")


def _kept_in(directory: str | None) -> str:
    if directory == "none":
        raise click.ClickException(
            "UNHANG_REPORT_DIR is none: no reports are kept; name a file, or a directory with --dir"
        )
    return directory or store.default_directory()


def _newest(directory: str) -> str:
    path = store.latest(directory)
    if path is None:
        raise click.ClickException(f"there is no report in {directory}; name a file, or a directory with --dir")
    return path


def _path_of(which: str, directory: str | None) -> str:
    """The file that is named, or that of the report whose id begins so."""
    if os.path.lexists(which) or "/" in which:
        return which
    place = _kept_in(directory)
    found = _found(place, which)
    if len(found) > 1:
        ids = ", ".join(words.clean(store.id_of(path), 64) for path in found[:5])
        more = ", …" if len(found) > 5 else ""
        raise click.ClickException(f"{len(found)} reports have an id that begins with {which!r}: {ids}{more}")
    if not found:
        raise click.ClickException(
            f"there is no file {which!r}, and no report in {place} has an id that begins so; "
            "`unhang report --list` shows all, --dir names another directory"
        )
    return found[0]


def _found(directory: str, beginning: str) -> list[str]:
    try:
        return store.find(directory, beginning)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise click.ClickException(f"{directory} cannot be read: {error.strerror}; --dir names another") from error


def _list(directory: str, *, as_json: bool) -> None:
    """All reports, the newest first; a file that is none says why."""
    entries = [_entry(path) for path in _found(directory, "")]
    if as_json:
        _print(msgspec.json.format(encoded(entries), indent=2).decode())
        return
    if not entries:
        click.echo(f"there is no report in {escaped(directory)}", err=True)
        return
    rows = [("TIME", "ID", "JOB", "HEADLINE")]
    for entry in entries:
        job = words.clean(entry["job"], 20) or "-"
        rows.append(
            (words.moment(entry["time"]), words.clean(entry["id"], 64), job, words.clean(entry["headline"], 240))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]
    # For a terminal each report is a line; for anything else all of the headline is there.
    most = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
    _print("\n".join(line if most is None or len(line) <= most else f"{line[: most - 1]}…" for line in lines))


def _entry(path: str) -> dict[str, str]:
    try:
        found = load(path)
    except NotAReportError as error:
        return {"time": "", "id": store.id_of(path), "job": "", "headline": error.reason, "file": path}
    return {"time": found.time, "id": found.id, "job": found.job, "headline": found.headline, "file": path}


def _print(document: str) -> None:
    """Print it as a page or JSON must be; on a terminal, in what it can show."""
    if sys.stdout is None:
        return  # it was closed before this began
    encoding = (sys.stdout.encoding or "utf-8") if sys.stdout.isatty() else "utf-8"
    click.echo(document.encode(encoding, "backslashreplace"))
