"""Python's ``time`` with the clocks of the system, also in a program that freezes time.

Tools that freeze time for tests put functions of their own into the module ``time``, and into each module that holds
one of the functions they know (freezegun), for as long as time stands still. A watchdog must neither take such a clock
for its own nor keep it for good. Hence the clocks here come from a copy of the module, made from the same C code: its
functions are objects that no such tool knows, also if this is imported while time stands still. Where C code itself is
patched (time-machine), the monotonic clock is left as it is. All else is that of ``time`` at the moment of the call.
"""

from __future__ import annotations

import time as _time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _copy() -> Any:
    try:
        spec: Any = _time.__spec__
        copy = spec.loader.create_module(spec)
        spec.loader.exec_module(copy)
        copy.monotonic_ns()
    except Exception:  # noqa: BLE001 - an interpreter that cannot make one has the module itself
        return _time
    return copy


if TYPE_CHECKING:
    from time import monotonic, monotonic_ns, sleep, thread_time, time
else:
    _real = _copy()
    monotonic, monotonic_ns, time = _real.monotonic, _real.monotonic_ns, _real.time

    def __getattr__(name: str) -> Any:
        return getattr(_time, name)


__all__ = ["monotonic", "monotonic_ns", "sleep", "thread_time", "time"]
