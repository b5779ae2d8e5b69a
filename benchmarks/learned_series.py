"""Series of how long blocks take, recorded ones and made ones: what learned budgets are tried on."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

RECORDED = Path(__file__).with_name("series")
# Where its length is not the point: processes, and blocks of each.
_RUNS, _BLOCKS = 20, 3000
_START = 20.0
# The run, the block in this run, and in all: how long it takes, in seconds. The usual block takes one.
_Draw = Callable[[random.Random, int, int, int], float]


@dataclass(frozen=True)
class Series:
    """How long blocks took.

    Attributes:
        name: what it is.
        kind: ``recorded``, ``made``, or ``beyond``: what the rule is not made for.
        again: whether a block that was killed takes as long when it is tried again: it is work that has to be done, and
            no mishap.
        runs: nanoseconds: processes, one after the other, each with a block that starts up and others.
    """

    name: str
    kind: str
    again: bool
    runs: list[list[int]]


def recorded() -> Iterator[Series]:
    """What series/record.py has recorded."""
    for path in sorted(RECORDED.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        yield Series(document["name"], "recorded", False, [[each * 1000 for each in run] for run in document["runs"]])


def made(seed: int) -> Iterator[Series]:
    """Series that are drawn; the same ones for the same seed."""
    for name, draw in _MADE.items():
        kind = "beyond" if name in _BEYOND else "made"
        yield Series(name, kind, name not in _MISHAPS, _drawn(random.Random(f"{name} {seed}"), _RUNS, _BLOCKS, draw))  # noqa: S311
    for name, make in _SHORT.items():
        yield Series(name, "made", True, make(random.Random(f"{name} {seed}")))  # noqa: S311


def _drawn(
    chance: random.Random, runs: int, blocks: int, draw: _Draw, start: Callable[[int], float] = lambda _: _START
) -> list[list[int]]:
    """So many runs of so many blocks behind a start-up."""
    found = []
    for run in range(runs):
        steady = [draw(chance, run, block, run * blocks + block) for block in range(blocks)]
        found.append([round(each * 1e9) for each in (_spread(chance, start(run), 0.2), *steady)])
    return found


def _spread(chance: random.Random, median: float, sigma: float) -> float:
    return median * math.exp(chance.gauss(0, sigma))


def _step(chance: random.Random, *_: int) -> float:
    return _spread(chance, 1, 0.1)


def _every(blocks: int, seconds: float, otherwise: _Draw = _step) -> _Draw:
    """Something that takes longer, in the last of so many blocks."""

    def draw(chance: random.Random, run: int, block: int, index: int) -> float:
        if block % blocks == blocks - 1:
            return _spread(chance, seconds, 0.1)
        return otherwise(chance, run, block, index)

    return draw


def _stall(rate: float, seconds: float, sigma: float) -> _Draw:
    """Something that takes longer, now and then."""

    def draw(chance: random.Random, *_: int) -> float:
        return _spread(chance, seconds, sigma) if chance.random() < rate else _step(chance)

    return draw


def _from_half(factor: float) -> _Draw:
    """From the half of the runs on, everything takes longer."""
    return lambda chance, run, *_: _step(chance) * (factor if run >= _RUNS // 2 else 1.0)


_MADE: dict[str, _Draw] = {
    "steady": _step,
    "spread (lognormal, sigma 0.6)": lambda chance, *_: _spread(chance, 1, 0.6),
    "waits (exponential)": lambda chance, *_: 0.5 + chance.expovariate(1.4),
    "heavy tail (lognormal, sigma 1)": lambda chance, *_: _spread(chance, 1, 1.0),
    "heavy tail (Pareto, alpha 2.5)": lambda chance, *_: 0.76 * chance.paretovariate(2.5),
    "a pause of 5 each 1,000": _every(1000, 5),
    "checkpoint of 30 each 500": _every(500, 30),
    "evaluation of 10 each 100, checkpoint of 60 each 1,000": _every(1000, 60, _every(100, 10)),
    "warm-up: 5 blocks of 15": lambda chance, _run, block, _index: _step(chance) * (15 if block < 5 else 1),
    "stalls of 30, one in 3,000": _stall(1 / 3000, 30, 0.3),
    "stalls of 20, most unequal, one in 3,000": _stall(1 / 3000, 20, 0.7),
    "one block of 60 in 60,000": lambda chance, _run, _block, index: 60.0 if index == 1700 else _step(chance),
    "slowly 3 times as slow": lambda chance, _run, _block, index: _step(chance) * (1 + 2 * index / (_RUNS * _BLOCKS)),
    "twice as slow from half on": _from_half(2),
    "8 times as slow from half on": _from_half(8),
    "5 times as fast from half on": _from_half(0.2),
    "4 times as slow from half on": _from_half(4),
}
_MISHAPS = {
    "heavy tail (lognormal, sigma 1)",
    "heavy tail (Pareto, alpha 2.5)",
    "stalls of 30, one in 3,000",
    "stalls of 20, most unequal, one in 3,000",
    "one block of 60 in 60,000",
}
_BEYOND = {"4 times as slow from half on"}


def _short_runs(chance: random.Random) -> list[list[int]]:
    return _drawn(chance, 40, 100, _step)


def _short_that_save(chance: random.Random) -> list[list[int]]:
    save = _every(100, 30)
    return _drawn(chance, 40, 100, lambda *at: save(*at) if at[1] % 5 == 4 else _step(*at))


def _trial_first(chance: random.Random) -> list[list[int]]:
    return _drawn(chance, 1, 60, _step) + _drawn(chance, _RUNS, _BLOCKS, _every(500, 30))


def _cold_starts(chance: random.Random) -> list[list[int]]:
    return _drawn(chance, 60, 500, _step, lambda run: 200.0 if run % 10 == 0 else 10.0)


def _slow_start(chance: random.Random) -> list[list[int]]:
    return _drawn(chance, 60, 500, _step, lambda run: 300.0 if run == 3 else _START)


_SHORT: dict[str, Callable[[random.Random], list[list[int]]]] = {
    "40 short runs": _short_runs,
    "40 short runs, each 5th saves": _short_that_save,
    "a trial of 60 blocks, then checkpoints of 30 each 500": _trial_first,
    "starts of 10, each 10th cold: 200": _cold_starts,
    "starts of 20, one of 300": _slow_start,
}
