"""Which implementation of a block a process uses, and what it says of it."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import capabilities
import unhang

SAYS = """
from unhang._worker import implementation
import unhang
with_module = implementation.CHOSEN.__name__.rpartition(".")[2]
assert unhang.Timer is implementation.CHOSEN.Timer and unhang.Heartbeat is implementation.CHOSEN.Heartbeat
print(with_module, implementation.WHY, sep="; ")
"""
BLOCK = "unhang._worker._block"


def said(before="", **environment):
    """What a new process says of its implementation, after it has done something before it imports unhang."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + before + SAYS],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def compiled():
    """There is the extension: a failure if it could have been built, a skip where there is none."""
    capabilities.extension()


@pytest.mark.parametrize("no", [None, "", "0", "no", "False"])
def test_the_extension_is_used_if_it_is_there(compiled, no):
    """Unless the environment says otherwise; what means no there does not."""
    assert said(**({} if no is None else {"UNHANG_PURE": no})) == "_block; compiled"


@pytest.mark.parametrize("yes", ["1", "yes", "true", "nonsense"])
def test_plain_python_can_be_asked_for(yes):
    """By anything that does not mean no; the extension is not loaded then."""
    not_loaded = f"import atexit; atexit.register(lambda: print({BLOCK!r} in sys.modules))\n"
    assert said(not_loaded, UNHANG_PURE=yes) == "plain; plain Python: UNHANG_PURE is set\nFalse"


NOT_BUILT = "plain; plain Python: the extension is not built"


def test_an_extension_that_may_not_be_loaded_is_not_missed():
    """None in sys.modules keeps a module out."""
    assert said(f"sys.modules[{BLOCK!r}] = None\n") == NOT_BUILT


def test_an_extension_that_is_not_built_is_not_missed(tmp_path):
    """A copy of the package without it works, and says in people's words why it is slower."""
    shutil.copytree(
        Path(unhang.__file__).parent, tmp_path / "unhang", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    assert said(f"sys.path.insert(0, {str(tmp_path)!r})\n") == NOT_BUILT


# Finders stand for files that cannot be had here.
FINDER = """
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "unhang._worker._block":
            raise {}
sys.meta_path.insert(0, Finder())
"""


def test_an_extension_that_cannot_be_loaded_says_why():
    """With the words of the loader: another C library, a file that is damaged."""
    before = FINDER.format('ImportError("libc.so.7: cannot open shared object file")')
    assert said(before) == "plain; plain Python: libc.so.7: cannot open shared object file"


def test_an_extension_that_is_damaged_says_so(tmp_path):
    """Half a file, as a full disk leaves it, does not keep the package from being imported."""
    shutil.copytree(
        Path(unhang.__file__).parent, tmp_path / "unhang", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    damaged = tmp_path / "unhang" / "_worker" / ("_block" + sysconfig.get_config_var("EXT_SUFFIX"))
    damaged.write_bytes(b"\x7fELF" + bytes(60))
    before = f"sys.path.insert(0, {str(tmp_path)!r})\n"
    assert said(before).startswith(f"plain; plain Python: {damaged}: ")


@pytest.mark.parametrize("layout", [{"VERSION": 1}, {"THREAD": 6}, {"NO_SUCH_WORD": 7}, {"DURATIONS": 0}])
def test_an_extension_for_another_layout_is_not_used(layout):
    """It would write other words of the page than the watchdog reads."""
    before = f"""
import types
sys.modules[{BLOCK!r}] = types.SimpleNamespace(LAYOUT={layout!r})
"""
    why = "plain Python: the extension was built for another version, install unhang again"
    assert said(before) == f"plain; {why}"


def test_an_extension_that_knows_nothing_of_durations_is_not_used():
    """It was built before there were any: each block would raise."""
    from unhang._worker import implementation

    before = f"""
import types
names = dict.fromkeys({implementation._NAMES!r})
sys.modules[{BLOCK!r}] = types.SimpleNamespace(**names | {{"LAYOUT": {{"VERSION": 2}}}})
"""
    assert said(before).startswith("plain; plain Python: the extension was built for another version")


def version(**environment):
    done = subprocess.run(
        [sys.executable, "-m", "unhang", "--version"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout.strip()


def test_the_version_says_which_implementation_it_is(compiled):
    """In one line, behind the number."""
    assert version() == f"unhang, version {unhang.__version__} (compiled)"
    plain = version(UNHANG_PURE="1")
    assert plain == f"unhang, version {unhang.__version__} (plain Python: UNHANG_PURE is set)"


def test_plain_python_arms_timers_where_there_is_no_extension():
    """A block, a heartbeat, a decorated function: all of it is there."""
    before = f"""
sys.modules[{BLOCK!r}] = None
import unhang
from unhang.testing import InMemoryWatchdog

with InMemoryWatchdog() as watchdog:
    with unhang.expires(60, "outer") as timer, unhang.heartbeat(60, "inner") as heart:
        heart.beat()
        heart.beat()
        timer.restart()
        assert sorted(watchdog.live) == ["inner", "outer"]
        assert unhang.expires(60, "call")(lambda: sorted(watchdog.live))() == ["call", "inner", "outer"]
    assert watchdog.live == []
"""
    assert said(before) == NOT_BUILT
