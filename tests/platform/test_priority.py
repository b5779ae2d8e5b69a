"""The priority of the watchdog's thread."""

import os
import subprocess
import sys
import threading

from support import in_a_thread
from unhang._platform.priority import raise_own_priority


def nice():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def raised():
    raise_own_priority()
    child = [sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"]
    return nice(), in_a_thread(nice), int(subprocess.check_output(child, timeout=30))


def may_raise():
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice() - 1)
    except PermissionError:
        return False
    return True


def test_a_thread_is_raised_alone():
    """Neither its process, nor the threads and processes that it starts: those have an ordinary priority."""
    before = nice()
    if in_a_thread(may_raise):
        assert in_a_thread(raised) == (-10, 0, 0)
    else:
        assert in_a_thread(raised) == (before, before, before)
    assert nice() == before


def test_who_may_not_goes_on_as_it_was(popen):
    """An ordinary user's watchdog has the priority that it was started with."""
    code = (
        "import os, resource, threading\n"
        "from unhang._platform.priority import raise_own_priority\n"
        "resource.setrlimit(resource.RLIMIT_NICE, (0, 0))\n"
        "os.getuid() or os.setresuid(65534, 65534, 65534)\n"
        "before = os.getpriority(os.PRIO_PROCESS, 0)\n"
        "raise_own_priority()\n"
        "print(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) - before)\n"
    )
    done = popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.communicate(timeout=30)[0] == "0\n"
