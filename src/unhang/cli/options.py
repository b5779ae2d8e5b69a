"""Options that several commands have."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unhang._worker.endings import signal_number
from unhang._worker.flags import says_no
from unhang.cli.quantities import Count, Seconds
from unhang.errors import AddressError

if TYPE_CHECKING:
    from unhang.observe.observer import Observing

Function = TypeVar("Function", bound=Callable[..., Any])

# What stands for "nowhere" as a directory of reports.
_NOWHERE = "none"

observe = click.option(
    "--observe",
    is_flag=True,
    envvar="UNHANG_OBSERVE",
    show_envvar=True,
    help="Tell what expires, and kill nobody.",
)

# For commands that look at a watchdog which runs already.
viewed = click.option(
    "--address",
    envvar="UNHANG_ADDRESS",
    show_envvar=True,
    metavar="PATH",
    help="The socket of the watchdog. Default: the only one of this user that runs.",
)


class _Signal(click.ParamType[int]):
    """A signal by name or number."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return signal_number(value)
        except (TypeError, ValueError) as error:
            self.fail(str(error), param, ctx)


_SECONDS = Seconds()
_ENDING = (
    click.option(
        "--signal",
        type=_Signal(),
        default="SIGTERM",
        envvar="UNHANG_SIGNAL",
        show_envvar=True,
        show_default=True,
        metavar="NAME|none",
        help="The signal that asks a hung worker to end; none: SIGKILL at once.",
    ),
    click.option(
        "--grace",
        type=_SECONDS,
        default="5s",
        envvar="UNHANG_GRACE",
        show_envvar=True,
        show_default=True,
        help="The time from that signal to SIGKILL.",
    ),
    click.option(
        "--kill",
        type=click.Choice(["process", "tree"]),
        default="process",
        envvar="UNHANG_KILL",
        show_envvar=True,
        show_default=True,
        help="End the worker alone, or with all that it has started.",
    ),
    click.option(
        "--pretimeout",
        type=_SECONDS,
        default="0s",
        envvar="UNHANG_PRETIMEOUT",
        show_envvar=True,
        help="Record evidence so long before a deadline already, without disturbing the worker.",
    ),
    click.option(
        "--evidence",
        type=_SECONDS,
        default="2s",
        envvar="UNHANG_EVIDENCE",
        show_envvar=True,
        show_default=True,
        help="The time that evidence may take at most before a worker is asked to end; 0: gather none.",
    ),
    click.option(
        "--native",
        is_flag=True,
        envvar="UNHANG_NATIVE",
        show_envvar=True,
        help="Show C functions in the stacks too, which takes longer.",
    ),
    click.option(
        "--report-dir",
        envvar="UNHANG_REPORT_DIR",
        show_envvar=True,
        metavar="DIR|none",
        help="Where reports are kept, the last 50. Default: unhang/reports in $XDG_STATE_HOME, else in ~/.local/state.",
    ),
    click.option(
        "--events",
        envvar="UNHANG_EVENTS",
        show_envvar=True,
        metavar="FILE|-",
        help="Append each event (a worker came, left, expired, was killed, …) to this file as a line of JSON; "
        "-: to standard error.",
    ),
)


def ending(function: Function) -> Function:
    """The options that say how a hung worker is looked at and ended; see `server_arguments`."""
    for option in reversed(_ENDING):
        function = option(function)
    return function


_HEALTH = (
    click.option(
        "--max-stall",
        type=_SECONDS,
        default="5m",
        envvar="UNHANG_MAX_STALL",
        show_envvar=True,
        show_default=True,
        help="How long a worker that is in a block may be without progress, to be well.",
    ),
    click.option(
        "--min-workers",
        type=Count(),
        default=0,
        envvar="UNHANG_MIN_WORKERS",
        show_envvar=True,
        show_default=True,
        help="How many workers have to be connected.",
    ),
    click.option(
        "--startup",
        type=_SECONDS,
        default="0s",
        envvar="UNHANG_STARTUP",
        show_envvar=True,
        show_default=True,
        help="How long behind the watchdog's start workers may be missing, and behind its own a worker may stall.",
    ),
    click.option(
        "--idle-too",
        is_flag=True,
        envvar="UNHANG_IDLE_TOO",
        show_envvar=True,
        help="A worker that is in no block may stall as well: it should always have something to do.",
    ),
)
_HTTP = click.option(
    "--http",
    envvar="UNHANG_HTTP",
    show_envvar=True,
    metavar="[HOST:]PORT",
    help="Answer /livez, /readyz, /metrics and /workers there, from a process of its own. Without HOST only this host "
    "can ask.",
)


_LEARN = click.option(
    "--learn",
    envvar="UNHANG_LEARN",
    show_envvar=True,
    metavar="FILE",
    help="Let workers write down how long their blocks take, and keep that in FILE, for unhang.learned() and "
    "`unhang budgets`.",
)


def health(function: Function) -> Function:
    """The options that say what is well: the fields of `unhang.observe.health.Limits`."""
    for option in reversed(_HEALTH):
        function = option(function)
    return function


def observer(function: Function) -> Function:
    """The options of the process beside the watchdog; see `observing`."""
    return _HTTP(_LEARN(health(function)))


def observing(options: dict[str, Any]) -> Observing:
    """Takes out of the options what `observer` has parsed."""
    from unhang.observe.learning import LearnedFile, LearnedFileError
    from unhang.observe.observer import Observing

    names = ("http", "max_stall", "min_workers", "startup", "idle_too")
    learn = options.pop("learn") or ""
    path = None if says_no(learn) else os.path.abspath(learn)  # noqa: PTH100 - links stay
    if path is not None:
        try:
            LearnedFile(path).check()
        except LearnedFileError as error:
            raise click.BadParameter(str(error), param_hint="'--learn' (env var: 'UNHANG_LEARN')") from error
    return Observing(learn=path, **{name: options.pop(name) for name in names})


def server_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a `SharedTimerServer` for what `ending` has parsed."""
    arguments = dict(options)
    arguments["tree"] = arguments.pop("kill") == "tree"
    arguments["report_dir"] = _report_directory(arguments["report_dir"])
    if (events := arguments.pop("events")) is not None:
        from unhang.observe.json_lines import JsonLines

        arguments["observers"] = [JsonLines(events)]
    return arguments


def _report_directory(chosen: str | None) -> str | None:
    """Where reports are kept; None: nowhere. One that was chosen and cannot be used is an error at once."""
    from unhang.report import store

    if chosen == _NOWHERE:
        return None
    if not chosen:
        return _default_report_directory()
    try:
        store.check(chosen)
    except store.ReportDirectoryError as error:
        message = f"{error}; name another directory, or none"
        raise click.BadParameter(message, param_hint="'--report-dir' (env var: 'UNHANG_REPORT_DIR')") from error
    return os.path.abspath(chosen)  # noqa: PTH100 - links stay


def _default_report_directory() -> str | None:
    from unhang.report.store import default_directory

    try:
        return os.path.abspath(default_directory())  # noqa: PTH100 - links stay
    except AddressError as error:
        logging.getLogger("unhang").warning(
            "no reports are kept: this user has no home, and %s; name a directory with --report-dir or %s",
            error,
            "UNHANG_REPORT_DIR",
        )
        return None


def from_environment() -> dict[str, Any]:
    """As `server_arguments`, for a watchdog that has no command line: the environment alone says it.

    Raises:
        click.ClickException: a variable holds nonsense; the message names it.
    """
    command = click.command()(ending(lambda **parsed: parsed))
    parsed: dict[str, Any] = command.main([], standalone_mode=False)
    return server_arguments(parsed)
