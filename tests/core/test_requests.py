"""What a request may be."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhang._core.requests import Fields, MalformedRequestError, checked, parse_line

GOOD = {"version": 1, "pid": 4711, "scope_id": "train.py:12", "expiration_time": 1.5, "signal": 9}
FIELDS = Fields(4711, "train.py:12", 1.5, 9)


def line(**changes):
    return json.dumps({**GOOD, **changes}).encode()


def test_a_request_is_read():
    """The fields come out as they were put in."""
    assert parse_line(line()) == FIELDS


def test_unknown_fields_and_a_missing_version_are_read():
    """What torch's server would read, ours reads."""
    assert parse_line(line(colour="red")) == FIELDS
    bare = {key: value for key, value in GOOD.items() if key != "version"}
    assert parse_line(json.dumps(bare).encode()) == FIELDS


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (b"\xff\xfe{}", "not UTF-8"),
        (b"nonsense", "not JSON"),
        (b"[" * 4000, "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b"{}", "bad pid"),
        (line(version=2), "other version"),
        (line(pid="4711"), "bad pid"),
        (line(pid=True), "bad pid"),
        (line(pid=1.5), "bad pid"),
        (line(pid=10**30), "bad pid"),
        (line(scope_id=None), "bad scope"),
        (line(scope_id=[]), "bad scope"),
        (line(scope_id=7), "bad scope"),
        (line(expiration_time="soon"), "bad expiration time"),
        (line(expiration_time=math.nan), "bad expiration time"),
        (line(expiration_time=10**400), "bad expiration time"),
        (line(expiration_time=False), "bad expiration time"),
        (line(signal="KILL"), "bad signal"),
        (line(signal=65), "bad signal"),
        (line(signal=None), "bad signal"),
    ],
)
def test_a_line_that_is_no_request_says_why(bad, kind):
    """Each kind of bad line has a name to be counted by."""
    with pytest.raises(MalformedRequestError) as caught:
        parse_line(bad)
    assert caught.value.kind == kind
    assert len(caught.value.detail) <= 100


@given(st.binary(max_size=200))
def test_any_line_is_a_request_or_malformed(data):
    """No bytes make the parser raise anything else."""
    with contextlib.suppress(MalformedRequestError):
        assert isinstance(parse_line(data), Fields)


@given(st.integers(1, len(line()) - 1))
def test_a_request_behind_half_a_request_is_read(cut):
    """A writer that stopped in the middle does not take the next writer's request with it."""
    assert parse_line(line(pid=1234)[:cut] + line()) == FIELDS


def test_a_scope_that_looks_like_a_request_is_a_scope():
    """Text inside a string is not taken for the beginning of a request."""
    scope = '{"version": 1, "pid": 99, "scope_id": "x", "expiration_time": 0, "signal": 9}'
    assert parse_line(line(scope_id=scope)).scope_id == scope
    with pytest.raises(MalformedRequestError):
        parse_line(line(scope_id=scope)[:-1])


def test_an_infinite_expiration_time_is_one():
    """A timer that never expires is allowed, since torch's server allows it."""
    assert checked(4711, "scope", math.inf) == (4711, "scope", math.inf)
