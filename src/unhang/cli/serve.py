"""``unhang serve``: the watchdog alone, at an address."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import signal
from pathlib import Path
from typing import Any

import click

from unhang._platform.directories import make_directory
from unhang._platform.limits import raise_file_limit
from unhang._platform.logs import log_to_stderr
from unhang._platform.socket_directory import fresh_directory, well_known_directory
from unhang.cli import options
from unhang.errors import AddressError
from unhang.observe import notify
from unhang.observe.observer import Observing, start_observer
from unhang.shared_timer import SharedTimerServer

_STOPPING = {signal.SIGINT, signal.SIGTERM}


@click.command()
@click.option(
    "--address",
    envvar="UNHANG_ADDRESS",
    show_envvar=True,
    metavar="PATH",
    help="The path of the socket to listen at, in a directory that nobody else may write to, which is made if there "
    "is none. Default: serve.sock in $XDG_RUNTIME_DIR/unhang, or in a private directory under the temporary one.",
)
@options.ending
@options.observer
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
    if address:
        # Whatever is wrong with it is told when the socket is made.
        with contextlib.suppress(OSError):
            make_directory(str(Path(address).parent), 0o711 if users else 0o700)
    observing = options.observing(ending)
    arguments = options.server_arguments(ending)
    notifier = notify.from_environment(os.environ)
    if notifier is not None:
        arguments = notifier.server_arguments(arguments)
    server = SharedTimerServer(
        address or _default_address(),
        observe=observe,
        users=[_uid(user) for user in users],
        _awaits_viewer=observing.is_needed,
        **arguments,
    )
    server.start()
    try:
        _serve(server, observing, notifier)
    finally:
        server.stop()


def _default_address() -> str:
    """The same one each time, if any well-known directory can be used."""
    name = "serve.sock"
    try:
        return f"{well_known_directory(name)}/{name}"
    except AddressError as error:
        address = f"{fresh_directory(name, error)}/{name}"
        logging.getLogger("unhang.serve").warning(
            "%s; listening at %s, which is another address each time: name one that stays with --address",
            error,
            address,
        )
        return address


def _serve(server: SharedTimerServer, observing: Observing, notifier: notify.Notifier | None) -> None:
    """Until somebody asks it to stop."""
    observer = start_observer(server.address, observing)
    click.echo(f"UNHANG_ADDRESS={server.address}")
    if observing.learn is not None:
        click.echo(f"UNHANG_LEARN={observing.learn}")
    if notifier is not None:
        notifier.ready()
    signal.sigwait(_STOPPING)
    if notifier is not None:
        notifier.stopping()
    if observer is not None:
        observer.close()


def _uid(user: str) -> int:
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise click.BadParameter(f"there is no user {user!r}", param_hint="--user") from None
