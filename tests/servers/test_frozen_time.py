"""Programs that freeze time, as tests do: a watchdog goes by the clocks of the system."""

import os
import subprocess
import sys

import pytest

import capabilities
from support import LONG

# What freezegun does: other functions, in `time` and in each module that holds one of its own.
FREEZE = """
import sys, time

sleep = time.sleep

def freeze(seconds):
    fakes = dict()
    for name in ("time", "monotonic", "perf_counter"):
        fakes[id(getattr(time, name))] = lambda: float(seconds)
        fakes[id(getattr(time, name + "_ns"))] = lambda: seconds * 10**9
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if id(value) in fakes and not name.startswith("real_"):
                setattr(module, name, fakes[id(value)])
"""
BLOCK = "with unhang.expires({after}, 'frozen'):\n    sleep({takes})\n"
BEFORE_IMPORT = FREEZE + "freeze({at})\nimport unhang\n" + BLOCK
BEFORE_BLOCK = FREEZE + "import unhang\nfreeze({at})\n" + BLOCK
BETWEEN_BLOCKS = FREEZE + "import unhang\nwith unhang.expires(60, 'first'): pass\nfreeze({at})\n" + BLOCK
# One of the drop-in, whose requests have an instant of the wall clock, with its server in the frozen program.
DROP_IN = (
    FREEZE
    + """
import os
{first}
import unhang
{second}
server = unhang.FileTimerServer(sys.argv[1], "test", max_interval=60)
server.start()
unhang.configure(unhang.FileTimerClient(sys.argv[1]))
pid = os.fork()
if not pid:
    with unhang.expires({after}, "frozen"):
        sleep({takes})
    os._exit(0)
status = os.waitpid(pid, 0)[1]
server.stop()
os._exit(9 if status == 9 else status)
"""
)
LONG_AGO, FAR = 1, 4_000_000_000


def ended(popen, code, pure, *args, **environment):
    """The exit status of the program."""
    if not pure:
        capabilities.extension()
    environment = {**os.environ, **environment, "UNHANG_PURE": pure}
    return popen([sys.executable, "-c", code, *args], env=environment, stderr=subprocess.DEVNULL).wait(LONG)


@pytest.mark.parametrize("pure", ["", "1"], ids=["compiled", "plain"])
@pytest.mark.parametrize(
    "code", [BEFORE_IMPORT, BEFORE_BLOCK, BETWEEN_BLOCKS], ids=["import", "first block", "another block"]
)
def test_a_block_of_a_program_that_freezes_time_is_watched_by_the_real_clock(popen, shared_server, code, pure):
    """It is neither killed in time, nor spared when it hangs."""
    address = shared_server.address
    assert ended(popen, code.format(at=LONG_AGO, after=60, takes=1), pure, UNHANG_ADDRESS=address) == 0
    assert ended(popen, code.format(at=FAR, after=0.3, takes=60), pure, UNHANG_ADDRESS=address) == -9


@pytest.mark.parametrize("first", ["freeze({at})", ""], ids=["before", "after"])
def test_the_drop_in_goes_by_the_real_clocks_too(popen, pipe_path, first):
    """The wall clock of its requests included."""
    code = DROP_IN.replace("{first}", first).replace("{second}", "" if first else "freeze({at})")
    assert ended(popen, code.format(at=LONG_AGO, after=60, takes=1), "", pipe_path) == 0
    assert ended(popen, code.format(at=FAR, after=0.3, takes=60), "", pipe_path) == 9
