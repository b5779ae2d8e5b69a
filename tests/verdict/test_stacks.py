"""Texts that are stacks, and texts that are not."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhang._platform.look import Look, ThreadLook
from unhang._verdict import stacks
from unhang._verdict.stacks import StacksError, from_faulthandler, from_pyspy, last_is_main, native_above
from unhang._verdict.threads import fill, guess_numbers, number, order
from unhang.report.model import Frame, Thread

SPY = {
    "thread_name": "MainThread",
    "os_thread_id": 7,
    "owns_gil": True,
    "frames": [
        {"name": "match", "filename": "/c.so", "module": "/c.so", "line": 3},
        {"name": "A.f", "filename": "/a.py", "module": None, "line": 5},
    ],
}
FAULTHANDLER = b"""Thread 0x00007f01 (most recent call first):
  File "/lib/threading.py", line 12 in wait
  File "/a \\xe9".py", line ??? in run

Current thread 0x00007f02 [main] (most recent call first):
  File "/a.py", line 5 in <module>
"""


def test_pyspy_threads_have_frames_and_the_gil():
    """Names, lines, the GIL and C code are as it says; the file of C code is its library."""
    (thread,) = from_pyspy(msgspec.json.encode([SPY]))
    assert (thread.id, thread.name, thread.holds_gil) == (7, "MainThread", True)
    assert thread.frames == (
        Frame(function="match", file="/c.so", native=True),
        Frame(function="A.f", file="/a.py", line=5),
    )
    assert native_above(thread.frames) == thread.frames[:1]
    assert stacks.without_native(thread.frames) == thread.frames[1:]


def test_faulthandler_threads_come_in_their_order():
    """Paths may hold quotes and escapes, lines may be missing, threads may have names."""
    first, second = from_faulthandler(FAULTHANDLER)
    assert [frame.function for frame in first.frames] == ["wait", "run"]
    assert first.frames[1].file == '/a é".py'
    assert first.frames[1].line == 0
    assert (second.name, second.frames[0].line) == ("main", 5)
    assert last_is_main(FAULTHANDLER)
    assert not last_is_main(FAULTHANDLER + b"...\n")


def test_deep_stacks_keep_both_ends():
    """Of ten thousand calls, the innermost and the outermost are left."""
    frames = [{"name": str(depth), "filename": "/a.py", "line": 1} for depth in range(10_000)]
    (thread,) = from_pyspy(msgspec.json.encode([{**SPY, "frames": frames}]))
    assert len(thread.frames) == stacks.INNERMOST + stacks.OUTERMOST
    assert (thread.frames[0].function, thread.frames[-1].function) == ("0", "9999")


def test_many_threads_are_cut():
    """Only so many threads are kept, of either source."""
    assert len(from_pyspy(msgspec.json.encode([SPY] * 1000))) == stacks.MOST_THREADS
    assert len(from_faulthandler(b"Thread 0x1 (most recent call first):\n" * 1000)) == stacks.MOST_THREADS


def test_names_cannot_move_a_cursor():
    """Control characters, long names and numbers without measure are made harmless."""
    frame = {"name": "\x1b[2J" + "x" * 10_000, "filename": "\u202e\n", "line": 10**30}
    (thread,) = from_pyspy(msgspec.json.encode([{**SPY, "os_thread_id": 2**62, "frames": [SPY["frames"][1]]}]))
    assert thread.id == 0
    with pytest.raises(StacksError):
        from_pyspy(b'[{"frames": [{"name": "a", "filename": "b", "line": 1e400}]}]')
    text = b'[{"frames": [{"name": "\\u001b[2J", "filename": "\\u202e", "line": 99999999999}]}]'
    (thread,) = from_pyspy(text)
    assert thread.frames == (Frame(function="\\x1b[2J", file="\\u202e"),)
    assert len(stacks.printable(frame["name"])) == 500


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_stacks_or_an_error(text):
    """Whatever is printed, nothing but StacksError comes out."""
    for parse in (from_pyspy, from_faulthandler):
        try:
            msgspec.json.encode(parse(text))
        except StacksError:
            continue


words = st.text(max_size=8)
numbers = st.integers(-(2**70), 2**70) | st.none()


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "thread_name": words | st.none(),
                "os_thread_id": numbers,
                "owns_gil": st.booleans(),
                "frames": st.lists(
                    st.fixed_dictionaries(
                        {"name": words, "filename": words, "module": words | st.none(), "line": numbers}
                    ),
                    max_size=3,
                ),
            }
        ),
        max_size=3,
    )
)
def test_any_document_of_that_form_can_be_reported(document):
    """What comes out can be written as JSON, and read again."""
    import json

    try:
        threads = from_pyspy(json.dumps(document).encode())
    except StacksError:
        return
    assert msgspec.json.decode(msgspec.json.encode(threads), type=tuple[Thread, ...]) == threads


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20), st.integers(0, 10**12)), max_size=5))
def test_any_frames_of_faulthandler_can_be_reported(frames):
    """Escapes that stand for no character are replaced."""
    lines = [f'  File "{file}", line {line} in {name}' for file, name, line in frames]
    text = "\n".join(["Thread 0x1 (most recent call first):", '  File "\\UFFFFFFFF\\ud800", line 1 in f', *lines])
    msgspec.json.encode(from_faulthandler(text.encode(errors="replace").lower().replace(b"thread", b"Thread", 1)))


MAIN, OTHER = Thread(id=1, name="MainThread"), Thread(id=2, name="io")
LOOK = Look(1, 0.0, threads=(ThreadLook(1, "python", "S", "w", "read"), ThreadLook(2, "io", "R")))


def test_the_relevant_thread_comes_first():
    """The hint decides; else who is behind the line that a block is named by; else the main thread."""
    at = Thread(id=3, frames=(Frame(function="f", file="/a.py", line=7),))
    assert order((MAIN, OTHER), 2, 1, "") == (OTHER, MAIN)
    assert order((OTHER, MAIN), 99, 1, "named") == (MAIN, OTHER)
    assert order((OTHER, MAIN, at), 0, 1, "/a.py:5") == (at, MAIN, OTHER)
    assert order((OTHER, MAIN, at), 0, 1, "/a.py:8") == (MAIN, OTHER, at)
    assert order((), 2, 1, "") == ()


def test_threads_are_filled_from_the_look():
    """State and system call come from procfs; without stacks, the threads do too."""
    assert fill((MAIN,), LOOK)[0].syscall == "read"
    assert [(thread.id, thread.name, thread.state) for thread in fill((), LOOK)] == [(1, "python", "S"), (2, "io", "R")]


def test_ids_are_ours_and_not_a_namespace_s():
    """A worker in a pid namespace of its own knows its threads by other numbers."""
    inside = Look(100, 0.0, threads=(ThreadLook(100), ThreadLook(102)), inner=((1, 100), (2, 102)))
    assert [thread.id for thread in number((MAIN, OTHER), inside)] == [100, 102]
    assert number((Thread(id=55, name="MainThread"),), LOOK)[0].id == 1


def test_ids_are_guessed_only_where_one_is_possible():
    """Python's handler tells no ids: the last thread is the main one, and of two the other is the hint's."""
    nameless = Thread()
    assert [thread.id for thread in guess_numbers((nameless, nameless), LOOK, 2, last_is_main=True)] == [2, 1]
    assert [thread.id for thread in guess_numbers((nameless, nameless), LOOK, 0, last_is_main=True)] == [0, 1]
    three = guess_numbers((nameless,) * 3, LOOK, 2, last_is_main=True)
    assert [thread.id for thread in three] == [0, 0, 1]
    named_by_the_kernel = guess_numbers((Thread(name="io"), Thread(name="python3")), LOOK, 2, last_is_main=True)
    assert [thread.name for thread in named_by_the_kernel] == ["io", "MainThread"]
    assert guess_numbers((nameless,), LOOK, 2, last_is_main=False) == (nameless,)


def test_the_thread_that_matters_is_kept_however_many_there_are():
    """That of the expired block, the main thread and the owner of the GIL, also if py-spy lists them last."""
    others = [{**SPY, "os_thread_id": number, "thread_name": "", "owns_gil": False} for number in range(100, 1100)]
    document = msgspec.json.encode([*others, {**SPY, "os_thread_id": 5, "owns_gil": False}])
    kept = {thread.id for thread in from_pyspy(document, 1099)}
    assert {5, 1099} <= kept
    assert len(kept) == stacks.MOST_THREADS
