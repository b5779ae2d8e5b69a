"""`expires` as a decorator. A module of its own, since most workers never need what it imports."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def scope_of(function: Callable[..., Any], otherwise: str) -> str:
    """The scope of an unnamed timer that decorates a function: the function's qualified name, if it has one."""
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else otherwise


def decorate(function: Callable[P, R], timer: Callable[[], AbstractContextManager[object]]) -> Callable[P, R]:
    """A function that runs ``function``, plain or ``async``, in a block of its own for each call.

    Raises:
        TypeError: it is a generator function.
    """
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__}() is a generator function: calling it does no work yet, so a timer around the "
            "call would watch nothing; put `with unhang.expires(...):` inside it"
        )
    if iscoroutinefunction(function):

        @functools.wraps(function)
        async def with_timer_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            with timer():
                return await function(*args, **kwargs)

        return cast("Callable[P, R]", with_timer_async)

    @functools.wraps(function)
    def with_timer(*args: P.args, **kwargs: P.kwargs) -> R:
        with timer():
            return function(*args, **kwargs)

    return with_timer
