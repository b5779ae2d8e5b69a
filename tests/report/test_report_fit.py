"""Reports that are made smaller."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report import samples
from report.random_reports import reports
from unhang.report.fit import LEAST_BYTES, fit
from unhang.report.frames import telling_thread
from unhang.report.model import Frame, Thread, decode, encode


def large(report, *, stderr=0, sockets=1, frames=0):
    """The report, with more in each worker."""
    workers = []
    for worker in report.workers:
        first, *others = worker.evidence.threads
        deep = tuple(
            Frame(function=f"recurse{i}", file="/home/ada/deep.py", line=i, source="x" * 60) for i in range(frames)
        )
        evidence = msgspec.structs.replace(
            worker.evidence,
            stderr="e" * stderr,
            sockets=worker.evidence.sockets * sockets,
            threads=(msgspec.structs.replace(first, frames=first.frames + deep), *others),
        )
        workers.append(msgspec.structs.replace(worker, evidence=evidence))
    return msgspec.structs.replace(report, workers=tuple(workers))


def test_a_report_that_fits_is_left_alone():
    """Nothing is copied."""
    report = samples.slow_loader()
    assert fit(report, 1 << 20) is report


def test_what_tells_least_goes_first():
    """Standard error before sockets; the stacks stay, and it is said what was cut."""
    report = large(samples.slow_loader(), stderr=10_000)
    smaller = fit(report, 60_000)
    assert [worker.evidence.stderr for worker in smaller.workers] == [""] * 8
    assert smaller.workers[0].evidence.sockets
    assert smaller.omitted == ("standard error, since a report has 60000 bytes at most",)
    smaller = fit(large(samples.slow_loader(), stderr=10_000, sockets=500), 60_000)
    assert not smaller.workers[0].evidence.sockets
    assert len(smaller.workers[0].evidence.threads) == 2
    assert len(smaller.omitted) == 2


def test_the_culprit_is_cut_last():
    """Its threads are kept when those of others go; of theirs the one that tells most stays."""
    report = samples.slow_loader()
    many = tuple(Thread(name=f"pool {i}" * 10) for i in range(40))
    workers = tuple(
        msgspec.structs.replace(
            worker,
            evidence=msgspec.structs.replace(worker.evidence, threads=worker.evidence.threads + many),
        )
        for worker in report.workers
    )
    smaller = fit(msgspec.structs.replace(report, workers=workers), 30_000)
    culprit, *victims = smaller.workers
    assert len(culprit.evidence.threads) == 42
    assert [victim.evidence.threads for victim in victims] == [
        (telling_thread(before.evidence),) for before in report.workers[1:]
    ]


def test_deep_stacks_are_cut_outside():
    """The innermost calls stay."""
    smaller = fit(large(samples.slow_loader(), frames=2000), 200_000)
    frames = smaller.workers[0].evidence.threads[0].frames
    assert len(frames) == 40
    assert frames[0].function == "decode"


def test_at_last_the_headline_is_left():
    """Ten thousand workers in eight thousand bytes."""
    report = samples.slow_loader()
    crowd = msgspec.structs.replace(
        report,
        headline="rank 2 hangs",
        workers=report.workers * 1250,
        verdict=msgspec.structs.replace(report.verdict, victims=tuple(range(10_000))),
    )
    smaller = fit(crowd, LEAST_BYTES)
    assert len(encode(smaller)) <= LEAST_BYTES
    assert smaller.headline == "rank 2 hangs"
    assert smaller.workers[0].pid == report.workers[0].pid
    assert any("all workers but" in line for line in smaller.omitted)


def test_no_report_is_that_small():
    """A bound that cannot be kept is refused."""
    with pytest.raises(ValueError, match="8192 bytes at least"):
        fit(samples.lone(), 100)


@given(reports, st.integers(1, 400), st.integers(LEAST_BYTES, 60_000))
@settings(max_examples=100)
def test_it_always_fits(report, times, most):
    """Whatever the model allows, however often; and it is a report still, with the incident's name."""
    longer = msgspec.structs.replace(
        report,
        headline=report.headline * times,
        workers=report.workers * times,
        departed=report.departed * times,
        omitted=report.omitted * times,
        verdict=msgspec.structs.replace(
            report.verdict, victims=report.verdict.victims * times, culprits=report.verdict.culprits * times
        ),
    )
    document = encode(fit(longer, most))
    assert len(document) <= most
    assert decode(document).id == report.id
