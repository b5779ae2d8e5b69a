"""Counts what was dropped, and says so once per kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType


class Tally:
    """How often each kind of thing happened; ``tell(kind, detail)`` is called for the first of a kind."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self._tell = tell
        self._counts: dict[str, int] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """A live, read-only view: kind → count."""
        return MappingProxyType(self._counts)

    def add(self, kind: str, detail: str, count: int = 1) -> None:
        """Count ``count`` events of a kind."""
        before = self._counts.get(kind, 0)
        self._counts[kind] = before + count
        if not before:
            self._tell(kind, detail)
