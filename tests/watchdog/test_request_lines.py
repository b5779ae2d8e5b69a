"""Lines of the named pipe, read fast: exactly what the general parser reads."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from unhang._core.requests import LARGEST_PID, MalformedRequestError, parse_line
from unhang._watchdog.request_lines import read_line

NUMBERS = st.one_of(
    st.integers(-3, 70), st.integers(LARGEST_PID - 1, LARGEST_PID + 1), st.integers(), st.floats(), st.booleans()
)
VALUES = st.one_of(NUMBERS, st.text(max_size=5), st.none(), st.lists(st.none(), max_size=2))
MESSAGES = st.fixed_dictionaries(
    {"pid": NUMBERS, "scope_id": st.one_of(st.text(), VALUES), "expiration_time": NUMBERS},
    optional={"version": st.one_of(st.just(1), VALUES), "signal": VALUES, "more": VALUES},
)


def outcome(read, line):
    try:
        found = read(line)
    except MalformedRequestError as error:
        return error.kind
    return found.pid, found.scope_id, found.expiration_time, found.signal


def check(line):
    assert outcome(read_line, line) == outcome(parse_line, line)


@given(MESSAGES, st.booleans())
def test_any_message_is_read_as_by_the_general_parser(message, ascii_only):
    """Good or bad: the same fields, or the same kind of fault."""
    check(json.dumps(message, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@given(st.integers(0, 90), st.binary(max_size=4), st.integers(0, 90))
@example(2, b"\x80", 0)
def test_a_damaged_line_is_read_as_by_the_general_parser(place, instead, cut):
    """Also the line after a half of another one."""
    line = json.dumps({"version": 1, "pid": 7, "scope_id": "ä", "expiration_time": 1.5, "signal": 9}).encode()
    check(line[:place] + instead + line[place + cut :])
    check(line[:place] + line)
