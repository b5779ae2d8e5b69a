"""The ``unhang`` command."""

from __future__ import annotations

import importlib
from typing import Any

import click

import unhang

# Imported when called: `unhang --help` need not pay for what it does not use.
_COMMANDS = {"demo": "unhang.cli.demo"}


class _LazyGroup(click.Group):
    """A group whose commands stand one in a file, as a function of the command's name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: Any = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return command if isinstance(command, click.Command) else None


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(unhang.__version__, prog_name="unhang")
def main() -> None:
    """Kill a hung worker on time.

    A worker says how long a block may take; if it is still in there then, it is killed from outside, so that
    whatever started it can start it again. `unhang demo` shows it on real processes.
    """
