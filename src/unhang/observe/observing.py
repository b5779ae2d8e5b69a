"""What the observer's process does: look once a second, until nobody needs it any more."""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

from unhang._core.histogram import Durations
from unhang._platform.descriptor import hold_streams
from unhang._platform.limits import raise_file_limit
from unhang._platform.logs import log_to_stderr
from unhang.errors import UnhangError
from unhang.observe.health import Limits
from unhang.observe.http import HttpServer
from unhang.observe.learner import Learner
from unhang.observe.learning import LearnedFile
from unhang.observe.site import Site
from unhang.observe.viewing import View

logger = logging.getLogger("unhang.observe")

# Seconds between two looks, and between two times that the durations of all blocks are added up, which takes longer.
_INTERVAL = 1.0
_DURATIONS_INTERVAL = 15.0
# Or so many times as long as that took, if it is more: thousands of workers have much to add up.
_REST = 20.0
_NICE = 5
# Seconds to wait for others who write the file of what is learned: no look is late for it.
_PATIENCE = 2.0
# The pipe whose end says that this process is not needed any more.
_LIFELINE = 0
# What a terminal, a service manager or a user sends to all processes of a job: this one ends with the watchdog, and not
# before.
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


class Looker:
    """Looks at the watchdog, and tells the site what it saw. Not thread-safe.

    Args:
        address: the watchdog's.
        site: told.
        learner: keeps what is learned; None: nothing is.
    """

    def __init__(self, address: str, site: Site, learner: Learner | None = None) -> None:
        self._address = address
        self._site = site
        self._learner = learner
        self._view: View | None = None
        self._durations: Mapping[str, Durations] = {}
        self._next_durations = 0.0

    def look(self) -> None:
        """Look once, in bounded time; connects where there is no connection."""
        try:
            if self._view is None:
                self._view = View(self._address, history=None)
            picture = self._view.look()
            if self._learner is not None:
                self._learner.happened(picture.events)
            # First of all: it takes longer to add up durations, and what was seen must not grow old meanwhile.
            self._site.saw(picture, self._durations)
            if picture.at >= self._next_durations:
                self._next_durations = picture.at + self._add_up(self._view)
        except UnhangError as error:
            self.close()
            self._site.lost(str(error))
        except Exception as error:
            logger.exception("A look failed")
            self.close()
            self._site.lost(f"a look failed: {error}")

    def _add_up(self, view: View) -> float:
        """Learn what the view knows; returns the seconds until that is due again."""
        began = time.monotonic()
        self._durations = view.durations()
        if self._learner is not None:
            self._learner.saw(self._durations)
        return max(_DURATIONS_INTERVAL, _REST * (time.monotonic() - began))

    def last_look(self) -> None:
        """Look once more, hang up, and keep all that was learned."""
        self._next_durations = math.inf  # they are added up when it hangs up
        self.look()
        self.close()
        if self._learner is not None:
            self._learner.save()

    def close(self) -> None:
        """Hang up; what the view knows is learned. May be called twice."""
        view, self._view = self._view, None
        if view is None:
            return
        self._next_durations = 0.0
        if self._learner is not None:
            try:
                self._learner.saw(view.durations())  # its pages are still there, whatever has become of the watchdog
            except Exception:
                logger.exception("What was learned last is lost")
            self._learner.begin_anew()
        view.close()


def _learner(path: str, *, again: bool) -> Learner:
    return Learner(LearnedFile(path, patience=_PATIENCE), again=again)


def main(told: dict[str, Any]) -> None:
    """Observe, until the lifeline ends."""
    hold_streams()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Whoever asks without pause takes no processor time from the watchdog and its workers that they want.
    os.nice(_NICE)
    log_to_stderr()
    raise_file_limit()
    site = Site(Limits(told["max_stall"], told["min_workers"], told["startup"], told["idle_too"]))
    if told["socket"] is not None:
        HttpServer(socket.socket(fileno=told["socket"]), site).start()
    learner = None if told["learn"] is None else _learner(told["learn"], again=told["again"])
    looker = Looker(told["address"], site, learner)
    lifeline = select.poll()
    lifeline.register(_LIFELINE, select.POLLIN)
    looker.look()
    while not lifeline.poll(_INTERVAL * 1000):
        looker.look()
    looker.last_look()
    looker.close()
    logging.shutdown()
    os._exit(0)  # whoever asks just now keeps nobody waiting
