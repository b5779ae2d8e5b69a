"""What worker and watchdog say to each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhang._core import messages
from unhang._core.identity import Identity
from unhang._core.messages import MessageError

IDENTITIES = st.builds(Identity, st.text(), st.none() | st.integers(0, 10**8), st.none(), st.none(), st.text())


@given(st.integers(0, 255), st.integers(0, 255), IDENTITIES)
def test_a_hello_comes_out_as_it_went_in(flags, stack_signal, identity):
    """The flags of a worker arrive, and who it is."""
    message = messages.hello(flags, stack_signal, identity)
    assert len(message) <= messages.LONGEST
    assert messages.parse_hello(message)[:2] == (flags, stack_signal)


@given(st.binary(max_size=20))
def test_only_a_hello_is_one(message):
    """Anything that does not begin as the first message of this version is refused."""
    if message[:7] != b"unhang\2" or len(message) < 9:
        with pytest.raises(MessageError):
            messages.parse_hello(message)


def test_another_version_is_named():
    """A worker of another version is told both versions."""
    with pytest.raises(MessageError, match=r"version 1.*version 3"):
        messages.parse_hello(b"unhang\1\0")


@given(st.text(max_size=2000))
def test_a_refusal_fits_a_packet_and_can_be_read(reason):
    """A reason of any length arrives, cut to fit."""
    message = messages.refused(reason)
    assert len(message) <= messages.LONGEST
    said = messages.refusal(message)
    assert reason.encode("utf-8", "backslashreplace").decode().startswith(said.rstrip("\N{REPLACEMENT CHARACTER}"))


def test_a_welcome_is_no_refusal():
    """Being watched has no reason, and says what the clock shows; what is neither is an error."""
    answer = messages.welcome(12345)
    assert (messages.refusal(answer), messages.clock_of(answer)) == (None, 12345)
    with pytest.raises(MessageError):
        messages.refusal(b"HTTP/1.1 400 Bad Request")
    with pytest.raises(MessageError):
        messages.refusal(answer[:-1])
