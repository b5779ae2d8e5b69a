"""Texts that fit: cut by what they take on a terminal, and harmless there whatever a worker calls its blocks."""

from __future__ import annotations

import math
import textwrap

from rich.cells import cell_len, set_cell_size

from unhang.report import words
from unhang.report.live import WorkerInfo

# What names a line, as in "train.py:88".
_LINE = ":"
# Nobody needs more of a text on a screen.
_MOST = 512


def fit(text: str, width: int) -> str:
    """The text on one line of at most ``width`` cells; the end is cut."""
    clean = words.clean(text, _MOST)
    if cell_len(clean) <= width:
        return clean
    return f"{set_cell_size(clean, width - 1).rstrip()}…" if width > 0 else ""


def fold(text: str, width: int) -> list[str]:
    """The text on as many lines as it takes, of at most ``width`` characters, or 20; words stay whole."""
    return textwrap.wrap(words.clean(text, _MOST), max(20, width), break_on_hyphens=False)


def fit_path(text: str, width: int) -> str:
    """As `fit`, but the beginning is cut: of whole directories, where that is enough."""
    clean = words.clean_path(text, _MOST)
    if cell_len(clean) <= width:
        return clean
    name = f"…/{clean.rpartition('/')[2]}"
    while "/" in clean and cell_len(clean) > width - 2:
        clean = clean.partition("/")[2]
    whole = f"…/{clean}"
    if cell_len(whole) <= width:
        return whole
    return _last_cells(name, width)


def _last_cells(text: str, width: int) -> str:
    if width <= 0:
        return ""
    while cell_len(text) > width - 1:
        text = text[1:]
    return f"…{text}"


def fit_scope(scope: str, width: int) -> str:
    """The name of a block: of a place in a file the end counts, of other names the beginning."""
    return fit_path(scope, width) if _is_place(scope) else fit(scope, width)


def _is_place(scope: str) -> bool:
    return "/" in scope or scope.rpartition(_LINE)[2].isdecimal()


def duration(seconds: float) -> str:
    """A duration in few cells: ``35ms``, ``5.2s``, ``61s``, ``12min``, ``3.4h``."""
    return words.seconds(seconds).replace(" ", "")


def since(seconds: float) -> str:
    """How long ago: what is known to a second only is ``now`` when it is recent."""
    return "now" if seconds < 2 else duration(math.floor(seconds) if seconds < 600 else seconds)


def name(info: WorkerInfo) -> str:
    """One worker: ``rank 7 (pid 1234)``, or ``worker 1234`` by its pid."""
    return f"worker {info.pid}" if info.rank is None else f"rank {info.rank} (pid {info.pid})"
