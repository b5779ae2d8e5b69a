"""Whom we may kill."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhang._core.rules import Facts, Me, refuse_group, refuse_number, refuse_process

ME = Me(pid=500, group=450, users=frozenset({1000}), ancestors=frozenset({1, 300, 400}))


def process(pid=600, user=1000, group=600):
    return Facts(pid=pid, group=group, user=user, start_time=1.0)


@pytest.mark.parametrize("pid", [0, 1, -1, 500, 300, 400, -450])
def test_these_numbers_are_never_signalled(pid):
    """Pid 0, 1 and -1, ourselves, our ancestors and our own process group are refused."""
    assert refuse_number(pid, ME) is not None


def test_a_worker_is_not_refused():
    """A process of the same user that is none of those may be killed, also in our own process group."""
    assert refuse_process(process(), ME) is None
    assert refuse_process(process(group=450), ME) is None


def test_another_users_process_is_refused():
    """Even if we could: root's watchdog does not kill users' processes."""
    assert "another user" in refuse_process(process(user=1001), ME)


def test_a_group_is_refused_for_any_member_that_is():
    """A group that holds an ancestor, ourselves or another user's process is left alone."""
    assert refuse_group(600, [process()], ME) is None
    for protected in (process(pid=300), process(pid=500), process(user=0)):
        assert refuse_group(600, [process(), protected], ME) is not None


@given(st.integers(-(2**22), 2**22), st.integers(0, 3000))
def test_whoever_is_allowed_is_a_stranger_of_our_user(pid, user):
    """No rule lets through a process that it should protect."""
    if refuse_process(process(pid=pid, user=user), ME) is None:
        assert pid not in {0, 1, -1, ME.pid, -ME.group} | ME.ancestors
        assert user in ME.users
