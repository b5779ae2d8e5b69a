"""Learned budgets against the rule of nvidia-resiliency-ext: false kills, and how long a hang goes on.

Each rule sees the same series, block after block, and learns when a process ends, as both do in use. A block that takes
longer than the budget in force is a false kill: no rule learns how long it would have taken, and the process is started
again, with the same block if that is work, and with the next one if it was a mishap. After three of them in a run,
somebody lets the rule begin anew, or the job would never end. A hang may begin in any block, and is over when its
budget is: so the detection time is the mean of the budgets in force. It is given in longest blocks of the series, so
that each series weighs the same, and a budget that is just long enough is 1. The first block of each process has its
budget apart. All rules start with, and stay within, the same bounds, those of somebody who knows the program: at least
a median block, at most ten times the longest one.

The other rule, by its source (fault_tolerance/timeouts_calc.py): five times the longest that was seen in the run, the
start-up apart; and the mean of that and the one before. "5 x longest of all" is the same without forgetting. What uses
it in Lightning waits until a checkpoint was loaded and one saved; here nothing says which blocks are.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from learned_series import Series, made, recorded
from unhang._core.budgets import Budgets, budgets
from unhang._core.histogram import Durations, Histogram
from unhang._core.memory import MINUTE, Memory

_SEEDS = 3
# What somebody sets who knows the program: so many times the longest block that it will ever have.
_GENEROUS = 10
_MARGIN = 2.0
_FACTOR = 5
_WEIGHT = 0.5
_PATIENCE = 3
# As many median blocks are taken for a minute in all series: those that are drawn are of blocks of a second.
_MINUTE_OF_BLOCKS = 60


class Rule(Protocol):
    """Something that learns budgets; nanoseconds."""

    def budgets(self) -> Budgets:
        """Those in force."""

    def learn(self, first: Sequence[int], steady: Sequence[int], killed: int) -> None:
        """Note the blocks of one process."""


@dataclass(frozen=True)
class Bounds:
    """What the user says; nanoseconds."""

    minimum: int
    maximum: int
    startup: int


class Unhang:
    """Ours, with its memory."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._memory = Memory()
        # Any moment will do.
        self._now = 1000 * MINUTE

    def budgets(self) -> Budgets:
        """Those in force."""
        bounds = self._bounds
        return budgets(self._memory.durations, bounds.minimum, bounds.maximum, bounds.startup, _MARGIN)

    def learn(self, first: Sequence[int], steady: Sequence[int], killed: int) -> None:
        """Note the blocks of one process, minute by minute."""
        start = Histogram.of(first)
        for part in self._minutes(steady):
            scaled = Histogram.of(part)
            self._memory.add(Durations(scaled, start), self._now)
            start = Histogram()
            self._now += MINUTE
        self._memory.add(Durations(first=start, killed=killed), self._now)
        self._now += MINUTE

    def _minutes(self, durations: Sequence[int]) -> Iterable[list[int]]:
        part, rest = [], _MINUTE_OF_BLOCKS * self._bounds.minimum
        for duration in durations:
            part.append(duration)
            rest -= duration
            if rest <= 0:
                yield part
                part, rest = [], _MINUTE_OF_BLOCKS * self._bounds.minimum
        if part:
            yield part


class Longest:
    """Five times the longest block of all."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._longest: tuple[float, float] = (0.0, 0.0)

    def budgets(self) -> Budgets:
        """Those in force."""
        if not all(self._longest):
            return Budgets(self._bounds.startup, self._bounds.maximum)
        first, steady = (_FACTOR * each for each in self._longest)
        return Budgets(self._within(first, self._bounds.startup), self._within(steady, self._bounds.maximum))

    def _within(self, budget: float, maximum: int) -> int:
        return round(max(self._bounds.minimum, min(budget, maximum)))

    def learn(self, first: Sequence[int], steady: Sequence[int], killed: int) -> None:  # noqa: ARG002
        """Note the blocks of one process."""
        known = self._longest
        self._longest = (max(known[0], *first, 0.0), max(known[1], *steady, 0.0))


class Merged(Longest):
    """Five times the longest block of a run, merged with what it was."""

    def learn(self, first: Sequence[int], steady: Sequence[int], killed: int) -> None:  # noqa: ARG002
        """Note the blocks of one process; nothing, if it has not come far enough."""
        if not first or not steady:
            return
        new = (float(max(first)), float(max(steady)))
        if all(self._longest):
            new = tuple(_WEIGHT * a + (1 - _WEIGHT) * b for a, b in zip(new, self._longest, strict=True))  # type: ignore[assignment]
        self._longest = new


RULES: dict[str, Callable[[Bounds], Rule]] = {
    "unhang": Unhang,
    "5 x longest, merged": Merged,
    "5 x longest of all": Longest,
}


class _Trial:
    """One rule on one series."""

    def __init__(self, make: Callable[[], Rule]) -> None:
        self._make = make
        self._rule = make()
        self.kills = 0
        self.total = 0
        self.count = 0

    def run(self, durations: Sequence[int], *, again: bool) -> None:
        """A process that comes to its end, though it may have to be started again."""
        known = self._rule.budgets()
        first: list[int] = []
        steady: list[int] = []
        kills = 0
        todo = list(reversed(list(enumerate(durations))))
        while todo:
            block, duration = todo.pop()
            budget = known.steady if block else known.first
            self.total += budget
            self.count += 1
            if duration <= budget:
                (steady if block else first).append(duration)
                continue
            kills += 1
            if kills == _PATIENCE:
                self._rule = self._make()
            else:
                self._rule.learn(first, steady, 1)
                first, steady = [], []
            known = self._rule.budgets()
            if again:
                todo.append((block, duration))
        self._rule.learn(first, steady, 0)
        self.kills += kills


def _figures(series: Series) -> dict[str, Any]:
    """The rules on one series."""
    median = round(statistics.median(each for run in series.runs for each in run[1:]))
    longest = max(max(run[1:]) for run in series.runs)
    bounds = Bounds(median, _GENEROUS * longest, _GENEROUS * max(run[0] for run in series.runs))
    found: dict[str, Any] = {"series": series.name, "kind": series.kind, "median_ns": median, "rules": {}}
    found["blocks"] = sum(map(len, series.runs))
    for name, rule in RULES.items():
        trial = _Trial(partial(rule, bounds))
        for run in series.runs:
            trial.run(run, again=series.again)
        found["rules"][name] = {"kills": trial.kills, "detection": trial.total / trial.count / longest}
    return found


def _all() -> list[dict[str, Any]]:
    """All series; of those that are made, the sums of the kills and the means of the times."""
    rows = [_figures(series) for series in recorded()]
    drawn = [[_figures(series) for series in made(seed)] for seed in range(_SEEDS)]
    for same in zip(*drawn, strict=True):
        row = same[0]
        row["blocks"] = sum(each["blocks"] for each in same)
        for name in RULES:
            results = [each["rules"][name] for each in same]
            kills = sum(each["kills"] for each in results)
            row["rules"][name] = {"kills": kills, "detection": statistics.fmean(each["detection"] for each in results)}
        rows.append(row)
    return rows


def main() -> None:
    """Print the figures as JSON; there is no quick way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", nargs="*", help="of no use here")
    parser.add_argument("--quick", action="store_true", help="of no use here")
    parser.parse_args()
    print(json.dumps(_all()))


if __name__ == "__main__":
    main()
