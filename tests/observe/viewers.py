"""What viewers under test do. Each gets a pipe as its last argument, and says there what it saw."""

import os
import resource

from unhang.errors import ViewError
from unhang.observe.viewing import View


def look_with_few_descriptors(address, say):
    """Look with room for a few pages, then for all; say why that failed, and how many pages with timers were seen."""
    view = View(address)
    used = os.dup(0)
    os.close(used)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 6, before[1]))
    why = ""
    try:
        view.look()
    except ViewError as error:
        why = error.reason
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    view.look()
    say.send((why, sum(len(worker.timers) for worker in view._workers.values())))
