"""Numbers and times that options take, each within a range that errors state in words."""

from __future__ import annotations

import itertools
import math
import re
from abc import abstractmethod
from typing import Any, TypeVar

import click

_Number = TypeVar("_Number", int, float)

# Seconds in a unit. `min` and `ms` are here because unhang itself prints times with them.
_UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PARTS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(d|h|min|ms|m|s)\s*")


def parse_seconds(text: str) -> float:
    """The seconds in a time such as ``90``, ``90s``, ``1m30s``, ``1.5h``, ``500ms``: each unit once, the largest first.

    Raises:
        ValueError: the text is no time.
    """
    text = text.strip().lower()
    try:
        seconds = float(text)
    except ValueError:
        seconds = _sum_of_parts(text)
    if math.isnan(seconds):
        raise ValueError(text)
    return seconds


def _sum_of_parts(text: str) -> float:
    parts = _PARTS.findall(text)
    sizes = [_UNITS[unit] for _, unit in parts]
    if not parts or _PARTS.sub("", text) or any(one <= other for one, other in itertools.pairwise(sizes)):
        raise ValueError(text)
    return sum(float(number) * size for (number, _), size in zip(parts, sizes, strict=True))


class _Within(click.ParamType[_Number]):
    """A number within a range.

    Args:
        least: the smallest, or the largest that is too small if ``above`` is set; None: there is none.
        most: the largest.
        above: whether ``least`` itself is too small.
    """

    def __init__(self, least: _Number | None = None, most: _Number | None = None, *, above: bool = False) -> None:
        self._least: _Number | None = least
        self._most: _Number | None = most
        self._above = above

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> _Number:
        """See `click.ParamType.convert`."""
        try:
            number = self._parse(str(value))
        except ValueError:
            return self.fail(self._says_what_it_is(str(value)), param, ctx)
        if self._least is not None and (number < self._least or (self._above and number == self._least)):
            bound = f"{'more than' if self._above else 'at least'} {self._in_words(self._least)}"
            return self.fail(f"{value} is too small: it must be {bound}", param, ctx)
        if self._most is not None and number > self._most:
            return self.fail(f"{value} is too large: it must be at most {self._in_words(self._most)}", param, ctx)
        return number

    @abstractmethod
    def _parse(self, text: str) -> _Number: ...

    @abstractmethod
    def _says_what_it_is(self, text: str) -> str: ...

    def _in_words(self, number: _Number) -> str:
        return f"{number:g}"


class Seconds(_Within[float]):
    """A time, in seconds; see `parse_seconds`. It may be at most 1e9 s, some thirty years, if no other end is given."""

    name = "duration"

    def __init__(self, least: float = 0.0, most: float = 1e9, *, above: bool = False) -> None:
        super().__init__(least, most, above=above)

    def _parse(self, text: str) -> float:
        return parse_seconds(text)

    def _says_what_it_is(self, text: str) -> str:
        return f"{text!r} is no time; write for example 90, 90s, 1m30s or 2h"

    def _in_words(self, number: float) -> str:
        return f"{number:g} s"


class Number(_Within[float]):
    """A number that may have a fraction."""

    name = "number"

    def _parse(self, text: str) -> float:
        number = float(text)
        if math.isnan(number):
            raise ValueError(text)
        return number

    def _says_what_it_is(self, text: str) -> str:
        return f"{text!r} is no number"


class Count(_Within[int]):
    """A whole number, from 0 on."""

    name = "n"

    def __init__(self) -> None:
        super().__init__(0)

    def _parse(self, text: str) -> int:
        return int(text)

    def _says_what_it_is(self, text: str) -> str:
        return f"{text!r} is no whole number"
