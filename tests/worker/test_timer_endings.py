"""How a timer says how its worker is to be ended, and how a worker writes down its own stacks."""

import asyncio
import os
import signal
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unhang
from unhang._core.page import HARMLESS_SIGNALS, ending, parse_ending
from unhang._platform import memfd, ptracer
from unhang._platform.self_report import SelfReport
from unhang._verdict.stacks import from_faulthandler
from unhang._worker.endings import parse, signal_number


@given(
    st.none() | st.integers(0, 31).filter(lambda n: n not in HARMLESS_SIGNALS),
    st.none() | st.integers(0, 10**9).map(lambda ms: ms / 1000),
)
def test_an_ending_comes_out_of_its_word_as_it_went_in(number, grace):
    """The signal and the grace, to the millisecond; and what was left to the watchdog still is."""
    assert parse_ending(ending(number, grace)) == (number, grace)


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_word_is_some_ending(word):
    """A worker may write nonsense: what comes out can be used."""
    number, grace = parse_ending(word)
    assert number is None or (0 <= number <= 31 and number not in HARMLESS_SIGNALS)
    assert grace is None or 0 <= grace < 2**32


@pytest.mark.parametrize(
    ("said", "number"),
    [("SIGTERM", 15), ("term", 15), ("SigInt", 2), (15, 15), ("15", 15), ("none", 0), ("SIGKILL", 0), (9, 0), (0, 0)],
)
def test_signals_have_names_and_numbers(said, number):
    """As people write them; none and SIGKILL mean that nobody is asked."""
    assert signal_number(said) == number


@pytest.mark.parametrize("said", ["SIGSTOP", "SIGCHLD", "nonsense", "", -1, 64, 2**40, "SIGRTMIN", signal.SIGCONT])
def test_signals_that_end_nobody_are_refused(said):
    """With the value, and what would be right."""
    with pytest.raises(ValueError, match="signal"):
        signal_number(said)


@pytest.mark.parametrize("said", [None, 1.5, True, b"SIGTERM"])
def test_what_is_no_signal_is_refused(said):
    """By its type."""
    with pytest.raises(TypeError):
        signal_number(said)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"grace": -1}, ValueError),
        ({"grace": float("nan")}, ValueError),
        ({"grace": "5"}, TypeError),
        ({"pretimeout": 0}, ValueError),
        ({"pretimeout": float("inf")}, ValueError),
        ({"signal": "SIGSTOP"}, ValueError),
    ],
)
def test_a_block_with_bad_options_is_refused_before_it_is_entered(unhang_watchdog, options, error):
    """When it is made, not at the deadline."""
    with pytest.raises(error):
        unhang.expires(60, **options)


def test_times_may_be_timedeltas_and_no_grace_is_a_grace():
    """As the timeout may; a grace of 0 is SIGKILL right behind the signal."""
    word, early = parse("SIGINT", timedelta(seconds=2), timedelta(seconds=1))
    assert (parse_ending(word), early) == ((2, 2.0), 10**9)
    assert parse_ending(parse(None, 0, None)[0]) == (None, 0.0)


def test_blocks_that_differ_in_how_they_end_are_told_apart(unhang_watchdog):
    """The same place with another signal is another kind of timer."""
    for number in ("SIGINT", "SIGUSR1", None):
        with unhang.expires(60, "step", signal=number):
            (seen,) = unhang_watchdog._worker.timers.live()
            assert parse_ending(seen.ending)[0] == (None if number is None else getattr(signal, number))


def test_decorated_functions_and_heartbeats_keep_their_options(unhang_watchdog):
    """Each call, and each beat, has a timer like the first."""

    def endings():
        return [parse_ending(seen.ending) for seen in unhang_watchdog._worker.timers.live()]

    @unhang.expires(60, "plain", signal="SIGINT", grace=1)
    def plain():
        return endings()

    @unhang.expires(60, "async", signal="SIGINT", grace=1)
    async def asynchronous():
        return endings()

    assert plain() == asyncio.run(asynchronous()) == [(2, 1.0)]
    with unhang.heartbeat(60, "beats", signal="SIGINT", grace=1) as beats:
        beats.beat()
        beats.beat()
        assert endings() == [(2, 1.0)]


def test_clients_of_the_contract_have_no_such_options():
    """They kill with the signal that their server has; that is said at once."""
    client = unhang.FileTimerClient.__new__(unhang.FileTimerClient)
    with pytest.raises(TypeError, match="shared timers"):
        unhang.expires(60, client=client, grace=1)


def test_a_process_writes_down_its_stacks_on_a_signal():
    """Those of all its threads, into the file that it was given, on a signal that it had no use for."""
    report = SelfReport()
    fd = memfd.create_stack_file()
    ours = os.dup(fd)
    report.write_to(fd)
    try:
        signal.raise_signal(report.number)
        threads = from_faulthandler(os.pread(ours, memfd.STACKS_SIZE, 0).rstrip(b"\0"))
    finally:
        report.close()
        os.close(ours)
    assert "test_a_process_writes_down_its_stacks_on_a_signal" in [frame.function for frame in threads[-1].frames]
    assert signal.SIGRTMIN < report.number <= signal.SIGRTMAX


def test_a_signal_that_the_program_uses_is_not_taken():
    """The next one is."""
    first = SelfReport().number
    before = signal.signal(first, lambda *_: None)
    try:
        assert 0 < SelfReport().number < first
    finally:
        signal.signal(first, before)


def test_the_watchdog_is_named_where_the_kernel_wants_it(monkeypatch, tmp_path):
    """Only with Yama's restriction; where there is no Yama, the kernel refuses, which is no error."""
    assert ptracer.allow(os.getppid()) in (True, False)
    scope = tmp_path / "ptrace_scope"
    monkeypatch.setattr(ptracer, "_SCOPE", str(scope))
    for text, pid in (("0\n", 1), ("1\n", 0)):
        scope.write_text(text)
        assert not ptracer.allow(pid)
    scope.write_text("1\n")
    assert ptracer.allow(os.getppid()) == os.path.exists("/proc/sys/kernel/yama/ptrace_scope")
