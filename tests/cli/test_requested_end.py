"""Ends of processes that were asked for."""

import signal

import pytest

from unhang.cli.requested_end import RequestedEnd


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("exit_", ["SIGINT", "SIGTERM", "exit code 1", "exit code 130"])
def test_an_end_after_ctrl_c_was_asked_for(exit_):
    """By that signal, by the one that a launcher sends on, or with a status."""
    requested = RequestedEnd(Clock())
    assert not requested.explains(exit_)
    requested.add(signal.SIGINT)
    assert requested.explains(exit_)


@pytest.mark.parametrize("exit_", ["SIGSEGV", "SIGKILL (out of memory)", "SIGABRT"])
def test_a_crash_after_ctrl_c_was_not(exit_):
    """It is news, whatever came before."""
    requested = RequestedEnd(Clock())
    requested.add(signal.SIGINT)
    assert not requested.explains(exit_)


def test_a_job_that_goes_on_after_a_signal():
    """A failure long after it is news; the signal itself never is."""
    clock = Clock()
    requested = RequestedEnd(clock)
    requested.add(signal.SIGTERM)
    clock.now += 60
    assert not requested.explains("exit code 1")
    assert requested.explains("SIGTERM")


def test_any_signal_that_was_passed_on():
    """Also one that ends nobody as a rule, under the name that an exit has."""
    requested = RequestedEnd(Clock())
    requested.add(signal.SIGUSR1)
    requested.add(signal.SIGRTMIN + 2)
    assert requested.explains("SIGUSR1")
    assert requested.explains("SIGRTMIN+2")
    assert not requested.explains("exit code 1")
    assert not requested.explains("SIGUSR2")


def test_what_unhang_ends_itself():
    """Nothing that ends then is news."""
    requested = RequestedEnd(Clock())
    requested.by_us = True
    assert requested.explains("SIGKILL")
