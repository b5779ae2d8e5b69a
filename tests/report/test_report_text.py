"""What `unhang run` prints about a hang."""

import unicodedata

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report import samples
from report.random_reports import reports
from unhang.report import about, text
from unhang.report.model import Block, Frame, HangClass, Report, Sure, Thread, Verdict, Worker

WIDE = 118


def render(report):
    return text.render(report, WIDE)


HEADLINES = {
    samples.lone: "worker 123 hangs in 'step' for 60 s: lock, train.py:41 in load_batch",
    samples.slow_loader: "rank 2 (pid 17784) hangs in 'load' for 61 s: python loop, loader.py:12 in decode; "
    "7 ranks wait for it",
    samples.sixty_four: "rank 37 (pid 17854) hangs in 'load' for 61 s: python loop, loader.py:12 in decode; "
    "63 ranks wait for it",
    samples.cannot_tell: "ranks 0-7 hang in 'all_reduce' for 60 s: network, train.py:57 in step; "
    "who is to blame can't be told",
    samples.out_of_memory: "rank 2 (pid 99) was ended by SIGKILL (out of memory), not by unhang; "
    "3 ranks wait for it in 'all_reduce': network, train.py:57 in step",
    samples.pretimeout: "rank 1 (pid 17782) is in 'load' for 55 s, expires in 5 s: lock, train.py:41 in load_batch",
}


@pytest.mark.parametrize(("sample", "line"), list(HEADLINES.items()), ids=lambda each: getattr(each, "__name__", ""))
def test_the_headline_says_who_hangs_where_and_how(sample, line):
    """One line, out of the rest of the report."""
    assert text.headline(sample()) == line
    assert render(sample()).splitlines()[0] == line


def test_a_headline_of_its_own_comes_first():
    """That of the report, if it has one."""
    assert render(msgspec.structs.replace(samples.lone(), headline="mine")).startswith("mine\n")


def test_one_slow_rank_of_eight():
    """All that somebody must know who reads nothing else."""
    assert render(samples.slow_loader()).splitlines()[1:] == [
        "job train-17, on node-1, 2026-03-01 12:03:41 UTC, report 4f2a91c0",
        "verdict: likely: rank 2 is at its block 411, all others are at 412 and wait for the network",
        "culprit: rank 2 (pid 17784) in 'load' for 61 s (timeout 60 s): python loop",
        "  100 % of a processor in 0.1 s; it holds the GIL; the same line twice",
        "  > /home/ada/data/loader.py:12 decode: while not header.complete:",
        "    /home/ada/data/loader.py:77 next_batch: image = decode(raw)",
        "    /home/ada/train.py:88 main: step(batch)",
        "    /home/ada/train.py:101 <module>: main()",
        "waiting: ranks 0-1,3-7 in 'all_reduce' for 60 s: network, train.py:57 in step",
        "outcome: ranks 0-7 killed (SIGKILL)",
    ]


def test_many_workers_take_no_more_lines():
    """64 ranks are told of in as many lines as eight."""
    lines = render(samples.sixty_four()).splitlines()
    assert len(lines) == len(render(samples.slow_loader()).splitlines())
    assert "waiting: ranks 0-36,38-63 in 'all_reduce' for 60 s: network, train.py:57 in step" in lines


def test_a_culprit_that_is_gone():
    """How it ended is told, and where the others wait for it."""
    rendered = render(samples.out_of_memory())
    assert (
        "culprit: rank 2 (pid 99) ended in 'load' by SIGKILL (out of memory), 58 s before the first expiry" in rendered
    )
    assert "  > /home/ada/train.py:57 step: dist.all_reduce(loss)" in rendered


def test_steps_of_a_lone_worker():
    """What was done about it, and when."""
    assert render(samples.lone()).splitlines()[-1] == (
        "outcome: worker 123 killed (SIGKILL): evidence at 10 ms, SIGTERM at 50 ms, SIGKILL at 5 s, dead at 5.1 s"
    )


def test_what_is_missing_is_said():
    """Why there is no stack, what was left out, and that the report is not complete."""
    report = samples.lone()
    bare = msgspec.structs.replace(report.workers[0].evidence, threads=(), without=("ptrace was refused",))
    report = msgspec.structs.replace(
        report,
        workers=(msgspec.structs.replace(report.workers[0], evidence=bare),),
        omitted=("sockets: too many",),
        complete=False,
        progressing=3,
    )
    rendered = render(report)
    assert "no stack: ptrace was refused" in rendered
    assert "omitted: sockets: too many" in rendered
    assert "others:  3 more make progress" in rendered


def test_a_block_that_was_left_in_time():
    """A near miss is told as one."""
    report = samples.lone()
    spared = msgspec.structs.replace(report.workers[0], outcome="spared")
    assert "hung in 'step' for 60 s and got over it" in text.headline(
        msgspec.structs.replace(report, workers=(spared,))
    )


def test_a_culprit_in_no_block():
    """It is told how long nothing was heard of it."""
    report = Report(
        id="x",
        time="",
        workers=(Worker(pid=1, rank=0, idle=75.0), Worker(pid=2, rank=1, expired=True)),
        verdict=Verdict(culprits=(1,), victims=(2,), sure=Sure.LIKELY),
    )
    assert text.headline(report) == "rank 0 (pid 1) is in no block, idle for at least 75 s; 1 rank waits for it"


@pytest.mark.parametrize(
    ("departed", "headline", "line"),
    [
        (
            {"exit": "exit code 1"},
            "rank 2 (pid 99) has ended with exit code 1; 3 ranks wait for it",
            "ended in 'load' with exit code 1, 58 s before the first expiry",
        ),
        (
            {"exit": ""},
            "rank 2 (pid 99) is gone: nobody knows how; 3 ranks",
            "ended in 'load', how is not known, 58 s before the first expiry",
        ),
        (
            {"exit": "SIGTERM, by unhang", "by_unhang": True},
            "rank 2 (pid 99) is gone: SIGTERM, by unhang; 3 ranks",
            "was ended by unhang in 'load' (SIGTERM), 58 s before the first expiry",
        ),
    ],
)
def test_how_one_that_is_gone_ended(departed, headline, line):
    """By a signal, with a status, by unhang, or nobody knows how."""
    report = samples.out_of_memory()
    gone = msgspec.structs.replace(report.departed[0], **departed)
    report = msgspec.structs.replace(report, departed=(gone,))
    assert text.headline(report).startswith(headline)
    assert f"culprit: rank 2 (pid 99) {line}" in render(report).splitlines()


def test_two_that_are_gone():
    """How each ended."""
    report = samples.out_of_memory()
    gone = (report.departed[0], msgspec.structs.replace(report.departed[0], pid=98, rank=4, exit="exit code 1"))
    verdict = msgspec.structs.replace(report.verdict, culprits=(98, 99))
    report = msgspec.structs.replace(report, departed=gone, verdict=verdict)
    assert text.headline(report).startswith("ranks 2,4 are gone: SIGKILL (out of memory), exit code 1; 3 ranks wait")


def change(report, *, evidence=None, **worker):
    """The report with its first worker changed."""
    first, *others = report.workers
    found = first.evidence if evidence is None else msgspec.structs.replace(first.evidence, **evidence)
    first = msgspec.structs.replace(first, **{"evidence": found, **worker})
    return msgspec.structs.replace(report, workers=(first, *others))


def test_one_that_may_finish_is_late():
    """It is no culprit before it has expired, and by itself there is no verdict about it."""
    report = samples.pretimeout()
    lines = render(report).splitlines()
    assert "late:    rank 1 (pid 17782) in 'load' for 55 s (timeout 60 s, expires in 5 s): lock" in lines
    assert any(line.startswith("verdict: ") for line in lines)
    alone = render(msgspec.structs.replace(report, workers=report.workers[:1]))
    assert "verdict:" not in alone
    assert "culprit:" not in alone
    undecided = msgspec.structs.replace(report, verdict=Verdict())
    assert "to blame" not in text.headline(undecided)


def test_facts_have_two_lines():
    """They are never cut within one: what does not fit is left out."""
    facts = ("a" * 60, "b" * 70, "c" * 110, "d" * 40)
    lines = render(change(samples.slow_loader(), evidence={"facts": facts})).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("culprit:"))
    assert lines[first + 1 : first + 3] == [f"  {facts[0]};", f"  {facts[1]}; {facts[3]}"]
    assert lines[first + 3].startswith("  > ")


def test_a_class_that_is_not_known_has_a_reason():
    """The first thing that could not be had."""
    found = {"hang": HangClass.UNKNOWN, "without": ("ptrace is refused", "no sockets")}
    assert (
        render(change(samples.lone(), evidence=found))
        .splitlines()[4]
        .endswith("nobody holds the GIL; less is known: ptrace is refused")
    )


def test_a_call_of_a_library_is_named_by_its_module():
    """Not by where it is installed."""
    report = samples.cannot_tell()
    frames = samples.NETWORK.frames[1:]
    rendered = render(change(report, evidence={"threads": (Thread(frames=frames),)}))
    assert "  in torch/distributed/distributed_c10d.py:2501 all_reduce: work.wait()" in rendered
    frame = msgspec.structs.replace(frames[0], file="/opt/pyenv/3.11/lib/python3.11/re/__init__.py", line=166)
    rendered = render(change(report, evidence={"threads": (Thread(frames=(frame, *frames)),)}))
    assert "  in re/__init__.py:166 all_reduce" in rendered


def test_another_host_is_named():
    """That of the watchdog stands in the second line already."""
    assert "(pid 17784, on node-2)" in render(change(samples.slow_loader(), host="node-2"))


def test_a_culprit_that_was_left_alone():
    """Nothing was done about it, and why."""
    block = msgspec.structs.replace(samples.expired("load"), expired=False)
    untouched = {"outcome": "", "exit": "", "steps": (), "expired": False, "blocks": (block,)}
    lines = render(change(samples.slow_loader(), **untouched)).splitlines()
    assert lines[-1] == ("outcome: ranks 0-1,3-7 killed (SIGKILL); rank 2 left alone: no timer of it has expired")


def test_what_ended_by_itself_was_left_alone():
    """How it ended stands behind that."""
    untouched = {"outcome": "", "exit": "SIGKILL", "steps": (), "expired": False}
    lines = render(change(samples.slow_loader(), **untouched)).splitlines()
    assert lines[-1] == "outcome: rank 2 left alone, ended (SIGKILL); ranks 0-1,3-7 killed (SIGKILL)"


def test_a_report_without_evidence():
    """It says so, and in one that has some, whom it is missing of."""
    unseen = msgspec.structs.replace(samples.lone().workers[0], evidence=None)
    report = msgspec.structs.replace(samples.lone(), workers=(unseen,))
    assert "  not looked at (evidence 0, or none in time)" in render(report).splitlines()
    report = samples.slow_loader()
    first, *others = report.workers
    first = msgspec.structs.replace(first, evidence=None)
    report = msgspec.structs.replace(report, workers=(first, *others))
    assert "  not looked at" in render(report).splitlines()


def test_a_long_verdict_has_two_lines():
    """It is not cut."""
    why = " ".join(["reason"] * 25)
    report = msgspec.structs.replace(samples.lone(), verdict=msgspec.structs.replace(samples.lone().verdict, why=why))
    lines = render(report).splitlines()
    assert lines[2].startswith("verdict: certain: reason reason")
    assert lines[3].startswith("         reason")
    assert " ".join(f"{lines[2]}{lines[3][8:]}".split()) == f"verdict: certain: {why}"


def test_ranks_at_many_places():
    """What does not fit twenty lines is folded, and everybody is named all the same."""
    ranks = [
        samples.worker(rank, samples.LOCK if rank % 2 else samples.NETWORK, samples.expired(f"block {rank}"))
        for rank in range(20)
    ]
    report = samples.report(workers=tuple(ranks), omitted=("much",))
    lines = render(report).splitlines()
    assert len(lines) <= 20
    assert "who is to blame can't be told" in lines[0]
    assert any(line.strip() == "and elsewhere ranks 3-19" for line in lines)
    assert lines[-1] == "omitted: much"


def printable(rendered):
    return all(unicodedata.category(character)[0] != "C" or character == "\n" for character in rendered)


def test_hostile_texts_stay_texts():
    """No escape sequence, no line of a worker's own, nothing without end."""
    rendered = render(samples.hostile())
    assert printable(rendered)
    assert not any(line.startswith("fake") for line in rendered.splitlines())


def test_long_lines_are_folded_with_an_indent():
    """Under a label to where its text begins, calls before their source; paths, source and names stay whole."""
    report = samples.out_of_memory()
    frames = (
        Frame(
            function="main",
            file="/home/ada/a project/with a long path/train.py",
            line=8,
            source="step(batch, fast = True)",
        ),
        *samples.LOADER.frames[2:],
    )
    lines = text.render(change(report, evidence={"threads": (Thread(frames=frames),)})).splitlines()
    assert all(len(line) <= 80 for line in lines[1:])
    culprit = lines.index("culprit: rank 2 (pid 99) ended in 'load' by SIGKILL (out of memory), 58 s before")
    assert lines[culprit + 1] == "         the first expiry"
    call = lines.index("  > /home/ada/a project/with a long path/train.py:8 main:")
    assert lines[call + 1] == "      step(batch, fast = True)"


def test_a_name_is_never_folded():
    """A scope with spaces goes to the next line as a whole."""
    scope = "the first step of an epoch, with data"
    block = samples.expired(scope)
    lines = text.render(change(samples.cannot_tell(), blocks=(block,))).splitlines()
    assert any(f"'{scope}'" in line for line in lines[1:])


def test_the_headline_is_folded_on_a_terminal_alone():
    """A program that reads a log looks at lines; what stands before it on its line counts."""
    report = samples.slow_loader()
    assert text.render(report).splitlines()[0] == text.headline(report)
    first, second, third, *_ = text.render(report, lead=8).splitlines()
    assert len(first) <= 72
    assert f"{first} {second.removeprefix('  ')}" == text.headline(report)
    assert third.startswith("job ")


@given(reports, st.integers(40, 200), st.none() | st.integers(0, 20))
@settings(max_examples=200)
def test_any_report_fits_any_width(report, width, lead):
    """At most twenty lines that are no wider than the terminal; but for a headline with a name that is."""
    lines = text.render(report, width, lead=lead).split("\n")
    headline = text.headline(report)
    assert len(lines) <= text.MOST_LINES
    for line in lines[1:]:
        assert len(line) <= width or line.strip() in headline


@given(reports)
@settings(max_examples=200)
def test_any_report_is_twenty_printable_lines(report):
    """Whatever the model allows."""
    rendered = render(report)
    lines = rendered.split("\n")
    assert lines == rendered.splitlines()
    assert len(lines) <= text.MOST_LINES
    assert all(len(line) <= WIDE for line in lines[1:])
    assert len(text.headline(report)) <= 240
    assert printable(rendered)


def test_the_block_to_name_is_the_one_that_the_report_is_about():
    """The first deadline that is over, before one that is about to be, before the block that was entered last."""
    old = Block(scope="old", after=60.0, started=-60.0, expired=True, due=True)
    older = Block(scope="older", after=600.0, started=-600.0, expired=True, deadline=-0.5)
    near = Block(scope="near", after=60.0, started=-58.0, due=True, deadline=2.0)
    last = Block(scope="last", after=60.0, started=-1.0, deadline=59.0)
    for blocks, named in (
        ((older, old, near, last), "old"),
        ((older, near, last), "older"),
        ((near, last), "near"),
        ((near, last)[1:], "last"),
    ):
        assert about.block_of(Worker(pid=7, blocks=blocks)).scope == named


def test_timers_that_are_not_in_the_report_are_counted():
    """A reader is not to think that there were no others."""
    block = Block(scope="handler", after=60.0, started=-60.0, expired=True, due=True)
    worker = Worker(pid=7, expired=True, armed=10_000, blocks=(block,))
    report = Report(id="x", time="2026-01-01T00:00:00.000Z", workers=(worker,), verdict=Verdict(culprits=(7,)))
    assert "(timeout 60 s, one of 10,000 armed timers)" in render(report)
