"""What the time of a shared timer's block is spent on: its steps one by one, as snippets on the same objects.

A snippet cannot be a block's step in every detail, so the steps do not quite add up: the rest is told too.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from typing import Any

import pyperf

from bench_empty import AFTER, Empty

LOOP = "the loop around each of these"
OBJECT = "an empty `with` on a new object"
WHOLE = "the block"
BY_NAME = "find what is known of the name"
BY_PLACE = "find what is known of the place of the call"

# Each with the loop around it.
STEPS = {
    LOOP: "pass",
    OBJECT: "with Empty(): pass",
    "call its __init__": "timer.__init__(site)",
    "read and write its attributes": "timer._site; timer._slot; timer._slot = slot; timer._slot; timer._slot = False",
    "call expires(after=, scope=)": "call(after=after, scope='step')",
    BY_NAME: "sites['step', after]",
    BY_PLACE: "frame = getframe(0); places.setdefault((id(frame.f_code), frame.f_lasti, after), site)",
    "take a slot, and give it back": "free.append(free.pop())",
    "read the clock": "deadline = site.clock() + site.after",
    "store the count": "slot.count = count = slot.count + 1; cell[1] = count",
    "store the deadline": "cell[0] = deadline",
    "read when the watchdog will look, compare": "wake = slot.watched[0]; wake <= deadline <= wake + site.slack",
    "mark the slot as not armed": "cell[0] |= never",
}
_SETUP = """
site, slot, cell, free, sites = parts
timer = Shell(site)
places = {}
deadline = site.clock() + site.after
"""


class Shell:
    """What a `Timer` is, without what it does."""

    __slots__ = ("_site", "_slot")

    def __init__(self, site: object) -> None:
        self._site = site
        self._slot: object = None


def _call(after: float, scope: str | None = None, client: object = None) -> None:
    """What `unhang.expires` looks like from outside."""


def steps(client: Any) -> dict[str, Callable[[int], float]]:
    """For each step what takes a number of times, does it so often, and returns the seconds."""
    from unhang._core.page import NEVER

    with client.timer(AFTER, "step") as timer:
        slot = timer._slot
    parts = timer._site, slot, slot.cell, timer._site.free, client.sites
    names = {
        "parts": parts,
        "Empty": Empty,
        "Shell": Shell,
        "call": _call,
        "after": AFTER,
        "getframe": sys._getframe,
        "never": NEVER,
    }
    return {
        name: timeit.Timer(step, _SETUP, timer=pyperf.perf_counter, globals=names).timeit
        for name, step in STEPS.items()
    }


def anatomy(found: dict[str, float], named: float, unnamed: float) -> list[tuple[str, float | None, float | None]]:
    """The steps without the loop, and the rest, in microseconds of a named and of an unnamed block.

    Args:
        found: microseconds of each step with its loop.
        named: of a named block with its loop.
        unnamed: of an unnamed one.
    """
    loop = found[LOOP]
    costs = {step: cost - loop for step, cost in found.items() if step != LOOP}
    each = sum(costs.values())
    named, unnamed = named - loop, unnamed - loop
    return [
        *(
            (step, None if step == BY_PLACE else cost, None if step == BY_NAME else cost)
            for step, cost in costs.items()
        ),
        ("the rest", named - each + costs[BY_PLACE], unnamed - each + costs[BY_NAME]),
        (WHOLE, named, unnamed),
    ]
