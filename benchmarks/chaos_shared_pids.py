"""Fault 9 for shared timers: nobody can name another process, so those who must not be killed come themselves."""

from __future__ import annotations

import os
import socket
import time
from multiprocessing.connection import Connection
from typing import Any

import chaos_liar
import unhang
from chaos_liar import HELLO, answer, dial, say
from chaos_shared_stage import watched_on
from chaos_stage import HANG, Outcome, Stage, failed
from unhang.errors import WatchdogLostError


def connects_itself(_server: Any, path: str) -> str | None:
    """Why the process that calls is refused by the watchdog at this path, with a deadline that is over; else None."""
    page = chaos_liar.Page()
    page.arm(1)
    with dial(path) as connection:
        say(connection, HELLO, [page.fd])
        said = _answer_later(connection)
    client = unhang.SharedTimerClient(path, on_lost="raise")
    try:
        client.connect()
    except WatchdogLostError as error:
        return error.reason if said[:1] == b"R" else None
    return None


def _answer_later(connection: socket.socket) -> bytes:
    try:
        return answer(connection)
    except TimeoutError:
        return b""


def server_connects(stage: Stage) -> Outcome:
    """A thread of the process that hosts the watchdog arms a timer that is due at once."""
    server = stage.serve()
    reason = server.ask(connects_itself, stage.path)
    return watched_on(server, [stage.hung(0.5)], [], f"; {reason}") if reason else failed("it is taken for a worker")


def ancestor_connects(stage: Stage) -> Outcome:
    """This process, which has started the watchdog's, arms a timer that is due at once."""
    server = stage.serve()
    reason = connects_itself(None, stage.path)
    return watched_on(server, [stage.hung(0.5)], [], f"; {reason}") if reason else failed("it is taken for a worker")


def other_user(stage: Stage, uid: int) -> Outcome:
    """A worker of root becomes another user's while its timer runs."""
    server = stage.serve()
    other = stage.worker(_become_other, uid)
    other.hear()
    return watched_on(server, [stage.hung(1.0)], [other])


def _become_other(stage: Stage, uid: int, pipe: Connection) -> None:
    client = stage.client()
    with stage.api.expires(after=0.5, scope="step", client=client):
        os.setresuid(uid, uid, uid)
        pipe.send("another user")
        time.sleep(HANG)
