"""``unhang check``: for probes, whether workers make progress."""

from __future__ import annotations

import sys
from typing import Any

import click

from unhang._platform.limits import raise_file_limit
from unhang.cli import options
from unhang.cli.output import tell
from unhang.errors import UnhangError


@click.command()
@options.viewed
@options.health
@click.option("--quiet", "-q", is_flag=True, envvar="UNHANG_QUIET", show_envvar=True, help="Say nothing.")
def check(address: str | None, quiet: bool, **limits: Any) -> None:
    """Say whether all workers make progress, and why not.

    \b
        $ unhang check --max-stall 300 --min-workers 8
        8 workers

    A worker stalls that is in a block (a timer of it is armed) and enters, restarts or leaves none for too long. For
    the probes of Kubernetes and others: the exit status is 0 when all is well, and 1 with one line when it is not, also
    when no watchdog answers within two seconds.
    """
    raise_file_limit()
    well, line = _found(address, limits)
    if not quiet:
        tell(line)
    sys.exit(not well)


def _found(address: str | None, given: dict[str, Any]) -> tuple[bool, str]:
    # Imported here, so that an option that is wrong is told without it.
    from unhang.observe import health
    from unhang.observe.find import find_watchdog
    from unhang.observe.viewing import View

    limits = health.Limits(**given)
    try:
        view = View(find_watchdog(address))
        try:
            picture = view.look()
        finally:
            view.close()
    except (UnhangError, OSError) as error:
        return False, " ".join(str(error).split())
    why = health.why_not(picture, limits)
    return not why, why or health.in_words(picture, limits)
