"""``unhang run``: a command, and the watchdog of everything that it starts."""

from __future__ import annotations

import sys
from typing import Any

import click

from unhang._platform.logs import log_to_stderr
from unhang.cli import options
from unhang.cli.job import Job, Options
from unhang.cli.quantities import Seconds


@click.command(
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
@click.option(
    "--after",
    type=Seconds(above=True),
    envvar="UNHANG_AFTER",
    show_envvar=True,
    help="A budget for COMMAND as a whole, such as 90, 1m30s or 2h: when it takes longer, report where each of its "
    "processes is, and end all of them. Needs no change to its code.",
)
@click.option(
    "--expect-timers",
    type=Seconds(above=True),
    envvar="UNHANG_EXPECT_TIMERS",
    show_envvar=True,
    help="Say loudly when no timer has been armed within this time: then nothing is watched.",
)
@click.option(
    "--tail-stderr",
    is_flag=True,
    envvar="UNHANG_TAIL_STDERR",
    show_envvar=True,
    help="Pass the standard error of COMMAND through a pipe, so that reports have its end. It is no terminal then. "
    "(Of one that goes to a file, they have it anyway.)",
)
@click.option(
    "--notify",
    type=click.Choice(["unhang", "command"]),
    default="unhang",
    envvar="UNHANG_NOTIFY",
    show_envvar=True,
    show_default=True,
    help="As a service (systemd's Type=notify): who says that it is ready, and alive. If it is COMMAND, it needs "
    "NotifyAccess=all.",
)
@click.option(
    "--fail-on-expiry",
    is_flag=True,
    envvar="UNHANG_FAIL_ON_EXPIRY",
    show_envvar=True,
    help="End with status 124 if any timer has expired (or --after was over), also if COMMAND got over it, and under "
    "--observe.",
)
@options.ending
@options.observer
@options.observe
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
def run(
    after: float | None,
    expect_timers: float | None,
    fail_on_expiry: bool,
    tail_stderr: bool,
    notify: str,
    observe: bool,
    command: tuple[str, ...],
    **ending: Any,
) -> None:
    """Run COMMAND, and watch the timers of everything that it starts.

    \b
        unhang run -- python train.py
        unhang run -- torchrun --nproc-per-node 8 train.py
        unhang run --after 1h -- ./nightly.sh

    A worker arms timers with `with unhang.expires(after=60):`. If one of them expires, its stacks and those of the
    other workers are recorded; then it is asked to end with SIGTERM, and killed if it does not. COMMAND runs in this
    terminal and gets this process's signals; what it leaves behind is ended with it.

    \b
    Exit status:
      124  a worker was killed, and COMMAND failed; or COMMAND was ended
           by --after; with --fail-on-expiry: something expired
      125  unhang itself failed
      126  COMMAND cannot be run
      127  COMMAND was not found
      else that of COMMAND; 128+N if signal N ended it
    """
    log_to_stderr()
    observing = options.observing(ending)
    server = {"observe": observe, **options.server_arguments(ending)}
    wanted = Options(after, expect_timers, observe, fail_on_expiry, tail_stderr, notify == "unhang", observing)
    sys.exit(Job(command, wanted, server).run())
