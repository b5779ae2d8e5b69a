"""The screen of a view that has not seen its watchdog yet. Pure: it only makes texts."""

from __future__ import annotations

from rich.text import Text

from unhang.observe.screen_header import keys
from unhang.observe.screen_words import fold


def waiting(trouble: str, width: int, height: int) -> list[Text]:
    """What is shown until the first picture comes: ``height`` lines at most, none wider than ``width`` cells.

    Args:
        trouble: why there is none; empty while nothing is wrong.
        width: columns of the terminal.
        height: its lines.
    """
    style = "bold white on red" if trouble else "dim"
    body = [Text("unhang top", style="bold"), Text()]
    body += [Text(line, style=style) for line in fold(trouble or "looking at the watchdog …", width)]
    body = [*body, *[Text()] * height][: max(0, height - 1)]
    lines = [*body, keys([("q", "quit")])]
    for line in lines:
        line.truncate(max(0, width))
    return lines[-height:] if height > 0 else []
