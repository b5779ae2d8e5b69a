"""JSON for people as well as programs: what a terminal must not be sent is escaped."""

from __future__ import annotations

from typing import Any

import msgspec

from unhang._core.texts import json_escaped


def encoded(value: Any) -> bytes:
    r"""A value as JSON, in UTF-8; control characters and their like are escaped. Never raises for a text.

    Half of a surrogate pair, which JSON cannot hold, becomes the text of its escape, as in ``\udcff``.
    """
    try:
        data = msgspec.json.encode(value)
    except UnicodeEncodeError:
        data = msgspec.json.encode(_paired(msgspec.to_builtins(value)))
    return json_escaped(data)


def _paired(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_paired(key): _paired(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_paired(each) for each in value]
    return value
