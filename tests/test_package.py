"""The package as a whole."""

import pickle
import subprocess
import sys

import pytest

import unhang
from unhang import errors

ERRORS = [
    errors.NoTimerClientError(),
    errors.TimerStateError("enter", "step", "armed"),
    errors.TooManyTimersError(130_000),
    errors.WatchdogLostError("/run/watchdog.sock", "gone"),
    errors.AddressError("@x", "abstract"),
    errors.NotSupportedError("a watchdog", "no memfd"),
    errors.RequestTooLargeError("scope", 5000, 4096),
    errors.NoTimerServerError("/run/timers", "gone"),
    errors.PipeFullError("/run/timers", 5.0),
    errors.NotOurPipeError("/run/timers", "a directory"),
]
STANDARD = [
    RuntimeError,
    RuntimeError,
    RuntimeError,
    ConnectionError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    BrokenPipeError,
    BlockingIOError,
    FileExistsError,
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_can_be_pickled(error):
    """They cross process borders with their data and their words."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize(
    ("error", "standard"),
    list(zip(ERRORS, STANDARD, strict=True)),
)
def test_errors_are_what_callers_catch(error, standard):
    """Code written for torch's exceptions, or for the standard ones, catches ours."""
    assert isinstance(error, standard)
    assert isinstance(error, unhang.UnhangError)


def test_a_system_error_has_its_number():
    """The subclasses of OSError carry errno and file name as the standard ones do."""
    error = errors.NoTimerServerError("/run/timers", "gone")
    assert (error.errno, error.filename) == (32, "/run/timers")


def test_a_worker_imports_the_standard_library_only():
    """Importing unhang and arming timers loads no third-party module: none from outside Python's own directory."""
    code = """
import sys, sysconfig
before = set(sys.modules)
import unhang, multiprocessing
client = unhang.LocalTimerClient(multiprocessing.Queue())
with unhang.expires(5, client=client): pass
loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - {"unhang", "__mp_main__"}
files = {name: getattr(sys.modules.get(name), "__file__", None) or "" for name in loaded - sys.stdlib_module_names}
stdlib = sysconfig.get_path("stdlib")
print(sorted(name for name, file in files.items() if not file.startswith(stdlib) or "site-packages" in file))
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


def test_all_names_exist():
    """What the package says that it has, it has."""
    assert all(hasattr(unhang, name) for name in unhang.__all__)
