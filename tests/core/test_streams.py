"""Lines and frames out of byte streams, whatever pieces they come in."""

import itertools
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unhang._core.frames import MOST_BYTES, FrameSplitter, embedded, frame
from unhang._core.lines import LineSplitter


def in_pieces(data, cuts):
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


cuts = st.lists(st.integers(0, 10**6), max_size=6)
lines = st.lists(st.binary(min_size=1, max_size=12).filter(lambda line: b"\n" not in line))


@given(lines, cuts)
def test_lines_come_out_as_they_went_in(expected, cuts):
    """Where the stream is cut does not matter."""
    splitter = LineSplitter(limit=12)
    data = b"".join(line + b"\n" for line in expected)
    assert [line for piece in in_pieces(data, cuts) for line in splitter.feed(piece)] == expected
    assert splitter.too_long == 0


@given(lines, st.integers(13, 100), lines, cuts)
def test_a_line_that_is_too_long_is_dropped_alone(before, size, after, cuts):
    """The lines around it come out, it is counted once, and little of it is kept."""
    splitter = LineSplitter(limit=12)
    data = b"".join(line + b"\n" for line in [*before, b"x" * size, *after])
    found = []
    for piece in in_pieces(data, cuts):
        found += splitter.feed(piece)
        assert len(splitter._unfinished) <= 12
    assert found == before + after
    assert splitter.too_long == 1


def test_an_endless_line_costs_no_memory():
    """A writer that never ends its line is one dropped line, and the next line comes out."""
    splitter = LineSplitter(limit=10)
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
        assert len(splitter._unfinished) <= 10
    assert splitter.feed(b"\ngood\n") == [b"good"]
    assert splitter.too_long == 1


payloads = st.lists(st.one_of(st.integers(), st.text(max_size=30), st.floats()).map(pickle.dumps))


@given(payloads, cuts)
def test_frames_come_out_as_they_went_in(expected, cuts):
    """Where the stream is cut does not matter."""
    splitter = FrameSplitter()
    data = b"".join(frame(payload) for payload in expected)
    assert [payload for piece in in_pieces(data, cuts) for payload in splitter.feed(piece)] == expected
    assert splitter.out_of_step == 0
    assert not splitter.unfinished


@given(st.binary(min_size=1, max_size=60).filter(lambda data: b"\x80" not in data), payloads, cuts)
def test_garbage_between_frames_loses_no_frame(garbage, expected, cuts):
    """The splitter finds its step again at the next frame, or when told that the rest will not come."""
    splitter = FrameSplitter()
    data = frame(pickle.dumps("before")) + garbage + b"".join(frame(payload) for payload in expected)
    found = [payload for piece in in_pieces(data, cuts) for payload in splitter.feed(piece)]
    for _ in range(len(garbage)):
        found += splitter.resume()
    assert found == [pickle.dumps("before"), *expected]


@given(st.integers(5, 5000), payloads.filter(bool))
@example(len(frame(pickle.dumps("x" * 5000))) - len(frame(pickle.dumps(0.0))), [pickle.dumps(0.0)])
def test_half_a_frame_loses_no_frame_behind_it(cut, expected):
    """What follows the half of a writer that died is found once the rest is given up."""
    splitter = FrameSplitter()
    half = frame(pickle.dumps("x" * 5000))[:cut]
    found = splitter.feed(half + b"".join(frame(payload) for payload in expected)) + splitter.resume()
    if found != expected:
        # The half and some frames behind it are just as long as the whole: that one cannot be loaded.
        with pytest.raises(UnicodeDecodeError):
            pickle.loads(found[0])
        found[:1] = embedded(found[0])
    assert found == expected


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data):
    """Garbage raises nothing and does not pile up."""
    splitter = FrameSplitter()
    for _ in range(5):
        for payload in splitter.feed(data):
            assert payload.startswith(b"\x80")
        splitter.resume()
    assert len(splitter._buffer) <= 5 * len(data)


@pytest.mark.parametrize("length", [0, -1, 2**31 - 1, MOST_BYTES + 1])
def test_an_impossible_length_is_skipped_at_once(length):
    """A header that no timer request can have does not make the splitter wait for the rest."""
    splitter = FrameSplitter()
    good = pickle.dumps("good")
    assert splitter.feed(length.to_bytes(4, "big", signed=True) + frame(good)) == [good]
