"""A thread that gets a processor before others do, as far as this user may have that."""

from __future__ import annotations

import contextlib
import os
import threading

# As much above others as an audio server: a watchdog needs a hundredth of a processor, but at once.
_NICE = -10


def raise_own_priority() -> None:
    """Raise the priority of the calling thread; a thread or process that it starts has an ordinary one.

    Needs ``CAP_SYS_NICE`` or a limit that allows it (``ulimit -e``); otherwise, and where there are no threads with
    priorities of their own, nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError):
        # First, so that nobody inherits it; it cannot be undone without that right, and harms nobody.
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        thread = threading.get_native_id()
        if os.getpriority(os.PRIO_PROCESS, thread) > _NICE:
            os.setpriority(os.PRIO_PROCESS, thread, _NICE)
