"""A standard output that may be closed, full, or a pipe that nobody reads any more."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import click

from unhang._core.texts import escaped

# As if SIGPIPE had ended it.
_BROKEN_PIPE = 141


def tell(line: str) -> None:
    """Print a line, on one line, if that can be done: for commands whose exit status says all."""
    try:
        click.echo(escaped(line))
    except OSError:
        _discard()


@contextlib.contextmanager
def read_by_somebody() -> Iterator[None]:
    """End quietly, with 141 as other commands do, when whoever reads what is printed here has seen enough."""
    try:
        yield
    except BrokenPipeError:
        _discard()
        sys.exit(_BROKEN_PIPE)


def _discard() -> None:
    """What is still to be written at the exit goes nowhere: it would change the exit status."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
