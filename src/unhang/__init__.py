"""A hung worker never raises. unhang kills it on time and shows where it was stuck.

The modules with plain names are public: ``api``, ``local_timer``, ``file_based_local_timer`` and
``debug_info_logging`` are the timer contract, a drop-in for ``torch.distributed.elastic.timer``;
``shared_timer`` is what `expires` uses by default; ``testing`` is for the tests of users. Below them, ``_worker`` is
what a process does to arm timers, ``_watchdog`` what all servers do with timers and workers, ``_platform`` the only
place that knows an operating system, and ``_core`` the pure part: deadlines, the page, rules, formats. ``cli`` is the
command line.

A process that only arms shared timers loads ``_worker`` and nothing else; the other names are loaded when used.
"""

from unhang._worker.choose import configure, expires
from unhang._worker.heartbeat import heartbeat
from unhang._worker.implementation import Heartbeat, Timer
from unhang.errors import UnhangError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unhang._worker.client import SharedTimerClient
    from unhang._worker.learned import Learned, learned
    from unhang.api import RequestQueue, TimerClient, TimerRequest, TimerServer
    from unhang.debug_info_logging import log_debug_info_for_expired_timers
    from unhang.file_based_local_timer import FileTimerClient, FileTimerRequest, FileTimerServer
    from unhang.local_timer import LocalTimerClient, LocalTimerServer, MultiprocessingRequestQueue
    from unhang.shared_timer import SharedTimerServer

__version__ = "0.1.0"

_LOADED_WHEN_USED = {
    "unhang._worker.client": ("SharedTimerClient",),
    "unhang._worker.learned": ("Learned", "learned"),
    "unhang.api": ("RequestQueue", "TimerClient", "TimerRequest", "TimerServer"),
    "unhang.debug_info_logging": ("log_debug_info_for_expired_timers",),
    "unhang.file_based_local_timer": ("FileTimerClient", "FileTimerRequest", "FileTimerServer"),
    "unhang.local_timer": ("LocalTimerClient", "LocalTimerServer", "MultiprocessingRequestQueue"),
    "unhang.shared_timer": ("SharedTimerServer",),
}
_MODULE_OF = {name: module for module, names in _LOADED_WHEN_USED.items() for name in names}

__all__ = [
    "FileTimerClient",
    "FileTimerRequest",
    "FileTimerServer",
    "Heartbeat",
    "Learned",
    "LocalTimerClient",
    "LocalTimerServer",
    "MultiprocessingRequestQueue",
    "RequestQueue",
    "SharedTimerClient",
    "SharedTimerServer",
    "Timer",
    "TimerClient",
    "TimerRequest",
    "TimerServer",
    "UnhangError",
    "configure",
    "expires",
    "heartbeat",
    "learned",
    "log_debug_info_for_expired_timers",
]


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'unhang' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
