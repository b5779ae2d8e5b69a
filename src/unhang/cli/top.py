"""``unhang top``: a watchdog and its workers, live."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import replace

import click

from unhang._platform.limits import raise_file_limit
from unhang.cli import options
from unhang.cli.quantities import Seconds
from unhang.cli.top_looks import Look, Looks
from unhang.cli.top_terminal import Terminal
from unhang.observe.picture import Picture
from unhang.observe.screen import Screen
from unhang.observe.screen_state import State, followed, press
from unhang.observe.screen_threads import count_threads
from unhang.observe.screen_waiting import waiting
from unhang.observe.screen_words import name
from unhang.report.model import Report

# Seconds for which something is said in the place of the keys.
_SAID = 3.0
# Seconds until stacks that do not come are given up.
_STACKS = 20.0
_BEAT = 1.0
_DUMB = {"dumb", "unknown"}


@click.command()
@options.viewed
@click.option(
    "--interval",
    type=Seconds(0.5, 3600),
    default="1s",
    envvar="UNHANG_TOP_INTERVAL",
    show_envvar=True,
    show_default=True,
    help="The time from one look to the next.",
)
def top(address: str | None, interval: float) -> None:
    """Show a watchdog and its workers, live: who is in which block, for how long, and who is stuck.

    \b
        $ unhang top
        $ unhang top --address /run/user/1000/unhang/serve.sock

    Workers that stand out come first, then those nearest to their deadlines. The keys stand below; ? explains all.
    Looking disturbs neither the watchdog nor its workers. Exit status: 0, or 125 if there is no watchdog to look at, or
    it refuses.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in _DUMB:
        raise click.ClickException("`unhang top` needs a terminal; for files and scripts there is `unhang status`")
    raise_file_limit()
    terminal = Terminal()
    looks = Looks(address, interval, terminal.wake)
    try:
        with terminal.opened():
            Top(terminal, looks).run()
    except EOFError:
        pass  # the terminal is gone
    finally:
        looks.close()


class Top:
    """The view: looks and keys in, screens out."""

    def __init__(self, terminal: Terminal, looks: Looks) -> None:
        self._terminal = terminal
        self._looks = looks
        self._state = State()
        self._picture: Picture | None = None
        self._busy: float | None = None
        self._alarm = ""
        self._stacks: Report | None = None
        self._message, self._until = "", 0.0
        self._waiting = ""

    def run(self) -> None:
        """Show it until somebody presses q."""
        while True:
            self._draw()
            for key in self._terminal.keys(_BEAT):
                if key == "q" and not (self._state.typing or self._state.pane):
                    return
                self._press(key)
            self._see(self._looks.new())

    def _see(self, looks: Iterable[Look]) -> None:
        for look in looks:
            if look.picture is None:
                self._fail(look)
                continue
            self._alarm = ""
            self._take_stacks(look.picture)
            if self._picture is None:
                self._picture = look.picture
            elif not self._state.paused:
                self._state = followed(self._state, self._picture, look.picture)
                self._picture, self._busy = look.picture, look.busy

    def _fail(self, look: Look) -> None:
        trouble = look.trouble.splitlines()[0]
        if self._picture is None:
            if look.refusal is not None:
                raise look.refusal
            self._alarm = f"{trouble}; trying again"
            return
        self._alarm = f"LOST the watchdog, looking for one again: {trouble}"
        if self._waiting:
            self._say(f"no stacks of {self._waiting}: the watchdog is lost")
            self._waiting = ""

    def _take_stacks(self, picture: Picture) -> None:
        if picture.stacks is not None:
            self._stacks, self._waiting = picture.stacks, ""
            self._say("")
            self._state = replace(self._state, pane="stacks", scroll=0)
        elif picture.no_stacks:
            self._say(f"no stacks of {self._waiting or 'it'}: {picture.no_stacks}")
            self._waiting = ""

    def _say(self, message: str, seconds: float = _SAID) -> None:
        self._message, self._until = message, time.monotonic() + seconds

    def _press(self, key: str) -> None:
        screen = self._screen()
        if screen is None:
            return
        if key in ("t", "enter") and not self._state.typing and (key == "t" or not self._state.pane):
            self._ask(screen)
            return
        self._state = press(self._state, key, screen.rows, screen.capacity, len(screen.pane))

    def _ask(self, screen: Screen) -> None:
        row = screen.selected
        if row is None:
            self._say("there is no worker to take stacks of")
            return
        # It stays the selected one, wherever it goes.
        self._state = replace(self._state, selected=row.info.number)
        self._waiting = name(row.info)
        self._say(f"taking the stacks of {self._waiting} …", _STACKS)
        self._looks.ask_stacks(screen.picture.watchdog.started, row.info.number)

    def _screen(self) -> Screen | None:
        if self._picture is None:
            return None
        width, height = self._terminal.size
        message = self._message if time.monotonic() < self._until else ""
        return Screen(
            self._picture,
            self._state,
            width,
            height,
            stacks=self._stacks,
            busy=self._busy,
            message=message,
            alarm=self._alarm,
        )

    def _draw(self) -> None:
        screen = self._screen()
        if screen is None:
            self._terminal.draw(waiting(self._alarm, *self._terminal.size))
            return
        threads = {} if self._state.pane else count_threads(screen.pids)
        self._terminal.draw(replace(screen, threads=threads).lines())
