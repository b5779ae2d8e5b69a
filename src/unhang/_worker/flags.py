"""What an environment variable says that is a yes or a no."""

from __future__ import annotations

_NO = {"", "0", "false", "f", "no", "n", "off"}
_YES = {"1", "true", "t", "yes", "y", "on"}


def says_no(text: str) -> bool:
    """Whether it means no; nothing at all does."""
    return text.strip().lower() in _NO


def is_clear(text: str) -> bool:
    """Whether it means yes or no."""
    return text.strip().lower() in _NO | _YES
