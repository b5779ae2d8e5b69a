"""The ``unhang`` command."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from typing import Any

import click

import unhang
from unhang._core.texts import escaped
from unhang._platform import dispositions, passing
from unhang._platform.descriptor import hold_streams
from unhang._worker.implementation import WHY
from unhang.errors import UnhangError

# In the order in which they help. Imported when called: `unhang --help` need not pay for what it does not use.
_COMMANDS = {
    "run": "unhang.cli.run",
    "serve": "unhang.cli.serve",
    "top": "unhang.cli.top",
    "status": "unhang.cli.status",
    "check": "unhang.cli.check",
    "report": "unhang.cli.report",
    "budgets": "unhang.cli.budgets",
    "demo": "unhang.cli.demo",
}
_SHORT = {
    "run": "Run a command, and watch everything that it starts.",
    "serve": "Watch workers that are started elsewhere.",
    "top": "Show who is in which block and who is stuck, live.",
    "status": "The same once, for scripts.",
    "check": "Say whether all workers make progress, for probes.",
    "report": "Show where a worker hung, and who is to blame.",
    "budgets": "Show how long blocks took, and what they should be given.",
    "demo": "Watch eight workers finish or hang, for a few seconds.",
}
# As coreutils' timeout, so that a failure of the watchdog is not taken for one of the command.
_FAILED = 125
_INTERRUPTED = 130
# What a message may have of its own, whatever it quotes.
_LAYOUT = "\n\t"


class _LazyGroup(click.Group):
    """A group whose commands stand one in a file, as a function of the command's name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: Any = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_SHORT.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(unhang.__version__, prog_name="unhang", message=f"%(prog)s, version %(version)s ({WHY})")
def unhang_command() -> None:
    """Kill a hung worker on time, from outside.

    \b
        $ unhang run -- python train.py

    Inside train.py, a block says how long it may take:

    \b
        import unhang
        with unhang.expires(after=60):
            all_reduce(x)

    If it is still in there after a minute, its process is killed, so that whatever started it can start it again.
    Every option can be set in the environment as well; the help of each command names the variables.
    """


def _with_suggestion(error: click.ClickException) -> click.ClickException:
    """The same error; of an option that does not exist, one that names those that may have been meant."""
    if not isinstance(error, click.NoSuchOption):
        return error
    there = [] if error.ctx is None else [name for param in error.ctx.command.params for name in param.opts]
    begun = error.option_name.lstrip("-")
    meant = [name for name in there if name.lstrip("-").startswith(begun)] or list(error.possibilities or ())[:1]
    hint = f" (did you mean {' or '.join(meant)}?)" if meant else ""
    return click.UsageError(f"no such option: {error.option_name}{hint}", error.ctx)


def main() -> None:
    """Run the command; exits with 125 when unhang fails, and says why in one line."""
    hold_streams()
    for stream in (sys.stdout, sys.stderr):
        # Names of blocks may hold what a terminal cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.argv[1:2] in (["run"], ["serve"]):
        dispositions.note()
        passing.hold()
    try:
        status = unhang_command(prog_name="unhang", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        _with_suggestion(error).show(shown)
        click.echo(escaped(shown.getvalue(), _LAYOUT), err=True, nl=False)
        sys.exit(_FAILED)
    except UnhangError as error:
        click.echo(f"unhang: {escaped(str(error), _LAYOUT)}", err=True)
        sys.exit(_FAILED)
    except click.Abort:
        sys.exit(_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - a failure of ours must not pass for one of the command
        with contextlib.suppress(OSError):
            click.echo(f"unhang: {type(error).__name__}: {escaped(str(error), _LAYOUT)}", err=True)
        sys.exit(_FAILED)
    sys.exit(status)
