"""Pickled requests, put together and taken apart by hand: exactly what pickle does."""

import math
import os
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unhang._core.frames import payload_of
from unhang._core.pickled_requests import _MOST_KEPT, KeptFrames, Parser, frames_of, instant
from unhang.api import TimerRequest

PIDS = st.integers(-(1 << 31), (1 << 31) - 1)
SCOPES = st.one_of(
    st.text(), st.sampled_from(["scope_id", "worker_id", "expiration_time", "\x94\x8c\tworker_id\x94K\x05"])
)
INSTANTS = st.floats(allow_nan=False)


def fields(request):
    return request.worker_id, request.scope_id, request.expiration_time


@given(PIDS, SCOPES, INSTANTS)
@example(7, "scope_id", 1.5)
def test_what_a_client_writes_is_what_pickle_writes(pid, scope, expiration_time):
    """Byte for byte, for arming and disarming."""
    frames = frames_of(TimerRequest, pid, scope)
    armed = payload_of(frames.armed + instant(expiration_time) + frames.armed_end)
    assert armed == pickle.dumps(TimerRequest(pid, scope, expiration_time))
    assert payload_of(frames.disarmed) == pickle.dumps(TimerRequest(pid, scope, -1))


@given(st.lists(st.tuples(PIDS, SCOPES, st.one_of(INSTANTS, st.just(-1)), st.integers(2, 5)), max_size=5))
def test_a_parser_reads_what_pickle_reads(requests):
    """Whatever it has learned from earlier requests; what it does not know, it leaves alone."""
    parser = Parser()
    for *given_fields, protocol in requests * 2:
        found = parser.parse(pickle.dumps(TimerRequest(*given_fields), protocol))
        assert found is None or found == tuple(given_fields)


@given(st.integers(0, 130), st.binary(max_size=9), st.integers(0, 9))
def test_a_parser_reads_a_damaged_pickle_as_pickle_does_or_not_at_all(place, instead, cut):
    """Also when it knows the undamaged one."""
    parser, whole = Parser(), pickle.dumps(TimerRequest(70_000, "scope", 1.5))
    assert parser.parse(whole) == (70_000, "scope", 1.5)
    damaged = whole[:place] + instead + whole[place + cut :]
    found = parser.parse(damaged)
    if found is not None and not math.isnan(found[2]):
        # The frame's length is not looked at: it says how to read, not what.
        assert (
            fields(pickle.loads(damaged[:2] + whole[2:3] + (len(damaged) - 11).to_bytes(8, "little") + damaged[11:]))
            == found
        )


def test_a_usual_request_is_known():
    """Nothing of the above is by leaving all to pickle."""
    assert Parser().parse(pickle.dumps(TimerRequest(os.getpid(), "train.py#12", 1.5))) == (
        os.getpid(),
        "train.py#12",
        1.5,
    )


def test_a_flood_of_scopes_is_not_kept():
    """Memory is bounded on both sides."""
    kept, parser = KeptFrames(TimerRequest, 7, 4096), Parser()
    for number in range(5 * _MOST_KEPT):
        kept.keep(str(number))
        parser.parse(pickle.dumps(TimerRequest(7, str(number), -1)))
    assert kept.get(str(number)) is not None
    assert len(kept._kept) <= _MOST_KEPT
    assert len(parser._known) <= 4 * _MOST_KEPT


@pytest.mark.parametrize("scope", [1, True, ("a",), "x" * 4000])
def test_only_plain_scopes_are_kept(scope):
    """1 and True would be the same key."""
    kept = KeptFrames(TimerRequest, 7, 4096)
    kept.keep(scope)
    assert kept.get(scope) is None
