"""Which frame of a stack is the user's."""

import json
import sysconfig

import pytest

import unhang.api
from report import samples
from unhang.report import frames
from unhang.report.frames import is_library, telling_thread, user_frame
from unhang.report.model import Evidence, Frame, HangClass, Thread


@pytest.mark.parametrize(
    "file",
    [
        "/usr/lib/python3.11/threading.py",
        "/opt/conda/lib/python3.13t/asyncio/base_events.py",
        "/usr/lib64/python3.12/queue.py",
        "/home/ada/venv/lib/python3.11/site-packages/torch/nn/functional.py",
        "/usr/lib/python3/dist-packages/yaml/__init__.py",
        "<frozen importlib._bootstrap>",
        json.__file__,
        f"{sysconfig.get_path('stdlib')}/socket.py",
        unhang.api.__file__,
    ],
)
def test_libraries(file):
    """Standard libraries wherever they are, what was installed, and unhang itself."""
    assert is_library(file)


@pytest.mark.parametrize(
    "file",
    ["/home/ada/train.py", "train.py", "<string>", "<stdin>", "/home/ada/lib/python/train.py", "/srv/unhang/x.py", ""],
)
def test_programs(file):
    """Anything else is the user's."""
    assert not is_library(file)


def test_the_programs_of_an_installed_unhang_are_programs(monkeypatch):
    """The demo's workers are what hangs in the demo, also where all else beside them is a library."""
    ours = "/home/ada/venv/lib/python3.11/site-packages/unhang"
    monkeypatch.setattr(frames, "_here", lambda: ((f"{ours}/",), f"{ours}/cli/"))
    assert not is_library(f"{ours}/cli/demo_workers.py")
    assert is_library(f"{ours}/api.py")
    assert is_library("/home/ada/venv/lib/python3.11/site-packages/torch/cli/x.py")


NATIVE = Frame(function="poll", file="/lib/libc.so.6", native=True)
LIBRARY = Frame(function="wait", file="/usr/lib/python3.11/threading.py", line=1)
OWN = Frame(function="step", file="/home/ada/train.py", line=2)
OUTER = Frame(function="main", file="/home/ada/train.py", line=3)


@pytest.mark.parametrize(
    ("stack", "chosen"),
    [
        ((NATIVE, LIBRARY, OWN, OUTER), OWN),
        ((OUTER, OWN), OUTER),
        ((NATIVE, LIBRARY), LIBRARY),
        ((NATIVE,), NATIVE),
        ((), None),
    ],
)
def test_the_innermost_call_of_the_program_is_chosen(stack, chosen):
    """Without one the innermost of Python, at last the innermost."""
    assert user_frame(Thread(frames=stack)) is chosen


def test_the_thread_that_keeps_the_gil_tells_most():
    """Only when that is how the worker hangs; else it is that of the block."""
    block, keeper = Thread(name="block"), Thread(name="keeper", holds_gil=True)
    assert telling_thread(Evidence(threads=(block, keeper), hang=HangClass.NATIVE_GIL)) is keeper
    assert telling_thread(Evidence(threads=(block, keeper), hang=HangClass.LOCK)) is block
    assert telling_thread(Evidence(hang=HangClass.NATIVE_GIL)) is None
    assert telling_thread(samples.lone().workers[0].evidence).name == "MainThread"
