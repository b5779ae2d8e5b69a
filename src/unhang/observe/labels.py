"""Scopes as labels of metrics: readable, and a bounded number of them whatever users invent."""

from __future__ import annotations

from collections.abc import Mapping

from unhang._core.texts import escaped

OTHER = "other"
_MOST = 100
_LONGEST = 120
# Of a path the last parts say where it is.
_PARTS = 2


def label_of(scope: str) -> str:
    """A scope on one line: paths by their last two parts, what cannot be printed escaped, the middle of long ones cut.

    The default scope of a block is ``/the/whole/path/of/train.py:12``.
    """
    if scope.startswith("/"):
        scope = "/".join(scope.split("/")[-_PARTS:])
    text = escaped(scope)
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[: half - 1]}…{text[-half:]}"


class ScopeLabels:
    """Gives scopes their labels. Once given, a label stays, so that a series goes on. Not thread-safe.

    Args:
        most: how many scopes have labels of their own; all others share ``other``.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._labels: set[str] = set()

    def of(self, counts: Mapping[str, int]) -> dict[str, str]:
        """The label of each scope. Where there is no room for all new ones, those that were used the most have it.

        Args:
            counts: by scope, how often it was used.
        """
        wanted = {scope: label_of(scope) for scope in counts}
        for scope in sorted(counts, key=lambda each: (-counts[each], each)):
            if len(self._labels) >= self._most:
                break
            self._labels.add(wanted[scope])
        return {scope: label if label in self._labels else OTHER for scope, label in wanted.items()}
