"""``unhang serve``: the watchdog alone, at an address."""

from __future__ import annotations

import pwd
import signal
from typing import Any

import click

from unhang._platform.address import private_directory
from unhang._platform.limits import raise_file_limit
from unhang._platform.logs import log_to_stderr
from unhang.cli import options
from unhang.shared_timer import SharedTimerServer

_STOPPING = {signal.SIGINT, signal.SIGTERM}


@click.command()
@click.option(
    "--address",
    envvar="UNHANG_ADDRESS",
    show_envvar=True,
    metavar="PATH",
    help="The path of the socket to listen at, in a directory that nobody else may write to. "
    "Default: serve.sock in $XDG_RUNTIME_DIR/unhang, or in a private directory under the temporary one.",
)
@options.ending
@options.observe
@click.option(
    "--user",
    "users",
    multiple=True,
    envvar="UNHANG_USER",
    show_envvar=True,
    metavar="NAME|UID",
    help="Watch the workers of this user too. For root alone; may be repeated.",
)
def serve(address: str | None, observe: bool, users: tuple[str, ...], **ending: Any) -> None:
    """Watch the workers that are started with this address in UNHANG_ADDRESS.

    \b
        $ unhang serve --address /run/user/1000/unhang/serve.sock &
        $ UNHANG_ADDRESS=/run/user/1000/unhang/serve.sock python worker.py

    Prints the address, then runs until SIGTERM or SIGINT. A new one at the same address finds the workers of the old
    one again, with their timers, as soon as they arm the next. Exit status: 0, or 125 if it cannot watch there.
    """
    log_to_stderr()
    raise_file_limit()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    if users and not address:
        raise click.UsageError(
            "--user needs an --address that the user can reach, such as /run/unhang/serve.sock: the default one is in "
            "a directory that nobody else may enter"
        )
    server = SharedTimerServer(
        address or f"{private_directory()}/serve.sock",
        observe=observe,
        users=[_uid(user) for user in users],
        **options.server_arguments(ending),
    )
    server.start()
    click.echo(f"UNHANG_ADDRESS={server.address}")
    signal.sigwait(_STOPPING)
    server.stop()


def _uid(user: str) -> int:
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise click.BadParameter(f"there is no user {user!r}", param_hint="--user") from None
