"""A hung worker never raises. unhang kills it on time and shows where it was stuck.

The modules with plain names are public. ``api``, ``local_timer``, ``file_based_local_timer`` and
``debug_info_logging`` are the timer contract, a drop-in for ``torch.distributed.elastic.timer``. Below them,
``_watchdog`` is what all servers do with timers and workers, ``_platform`` the only place that knows an
operating system, and ``_core`` the pure part: deadlines, rules, formats. ``cli`` is the command line.
"""

from unhang.api import RequestQueue, TimerClient, TimerRequest, TimerServer, configure, expires
from unhang.debug_info_logging import log_debug_info_for_expired_timers
from unhang.errors import UnhangError
from unhang.file_based_local_timer import FileTimerClient, FileTimerRequest, FileTimerServer
from unhang.local_timer import LocalTimerClient, LocalTimerServer, MultiprocessingRequestQueue

__version__ = "0.1.0"

__all__ = [
    "FileTimerClient",
    "FileTimerRequest",
    "FileTimerServer",
    "LocalTimerClient",
    "LocalTimerServer",
    "MultiprocessingRequestQueue",
    "RequestQueue",
    "TimerClient",
    "TimerRequest",
    "TimerServer",
    "UnhangError",
    "configure",
    "expires",
    "log_debug_info_for_expired_timers",
]
