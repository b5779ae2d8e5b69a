"""`unhang budgets`, run as a user runs it."""

import json
import os
import subprocess
import sys

import pytest

from unhang._core.histogram import Durations, Histogram
from unhang.observe.learning import LearnedFile

SECOND = 10**9


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "unhang", "budgets", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    directory = tmp_path_factory.mktemp("learned")
    directory.chmod(0o700)
    now = [1_000_000.0]
    file = LearnedFile(str(directory / "learned.json"), clock=lambda: now[0])
    steps = Histogram.of(SECOND + index * SECOND // 1000 for index in range(240))
    for minute in range(20):
        start = Histogram.of([20 * SECOND] * 4 if minute == 0 else [])
        file.add({"step": Durations(steps, start, budget=SECOND + SECOND // 10, killed=minute == 3)})
        file.add({"src/train/checkpoint.py:214": Durations(Histogram.of([30 * SECOND]), budget=60 * SECOND)})
        file.save()
        now[0] += 60
    file.add({"\x1b[31mred\n": Durations(Histogram.of([20_000]))})
    file.save()
    return file.path


def test_a_table_for_people(path):
    """A line for each scope, the most used first, its start-up in one of its own; it fits into 80 columns."""
    done = run(path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(lines[0].split()) == "scope blocks p50 p99 p99.9 max today kills proposed kills"
    assert lines[1].split() == ["▸", "step", "4", *["20s"] * 4, "-", "-", "10min*", "0"]
    assert lines[2].split()[:8] == ["step", "4800", "1.2s", "1.2s", "1.2s", "1.2s", "1.1s", "3320"]
    assert lines[3].split()[:7] == ["…/checkpoint.py:214", "20", "30s", "30s", "30s", "30s", "60s"]
    assert lines[4].split()[:3] == ["\\x1b[31mred", "1", "20µs"]
    assert "1 killed in 'step'; how long that would have taken is not known" in lines
    assert any(line.startswith("* ") for line in lines)
    assert any(line.startswith("▸ ") for line in lines[5:])


def test_json_for_scripts(path):
    """The same in seconds, with what is exact."""
    done = run("--json", path)
    found = json.loads(done.stdout)
    assert found["file"] == path
    first, step, *_ = found["budgets"]
    assert (first["start_up"], first["count"], first["budget"], first["little"]) == (True, 4, None, True)
    assert (step["scope"], step["count"], step["budget"], step["longest"]) == ("step", 4800, 1.1, 1.239)
    # Those above 1.1 s, and all others of their bucket.
    assert 20 * 139 <= step["would_kill"] == 3320
    assert step["proposed_would_kill"] == 0
    assert 2 * step["longest"] <= step["proposed"] < 600


def test_what_is_asked_for_bounds_what_is_proposed(path):
    """The minimum, the maximum and the margin; also from the environment."""
    step = json.loads(run("--json", "--maximum", "2", path).stdout)["budgets"][1]
    assert step["proposed"] == 2
    step = json.loads(run("--json", path, UNHANG_BUDGETS_MINIMUM="500").stdout)["budgets"][1]
    assert step["proposed"] == 500
    narrow, wide = (json.loads(run("--json", "--margin", each, path).stdout)["budgets"][1] for each in ("1", "4"))
    assert narrow["proposed"] < wide["proposed"]
    first = json.loads(run("--json", "--startup", "7000", path).stdout)["budgets"][0]
    assert first["proposed"] == 7000
    rare = json.loads(run("--json", "--target", "1e-12", path).stdout)["budgets"][1]
    assert rare["proposed"] > json.loads(run("--json", path).stdout)["budgets"][1]["proposed"]


def test_the_file_comes_from_the_environment_too(path, tmp_path):
    """As `unhang run --learn` hands it on; else it is where unhang.configure() keeps it."""
    assert json.loads(run("--json", UNHANG_LEARN=path).stdout)["file"] == path
    done = run(XDG_STATE_HOME=str(tmp_path), UNHANG_LEARN="")
    assert done.returncode == 125
    assert f"{tmp_path}/unhang/learned.json" in done.stderr


def test_files_that_are_none(tmp_path):
    """One line says what is wrong, and what to do; exit status 125."""
    missing = run(str(tmp_path / "none.json"))
    assert (missing.returncode, missing.stdout) == (125, "")
    assert missing.stderr == (
        f"Error: there is no {tmp_path}/none.json: `unhang run --learn {tmp_path}/none.json` makes one\n"
    )
    broken = tmp_path / "broken.json"
    broken.write_text("[1, 2]")
    broken.chmod(0o600)
    done = run(str(broken))
    assert done.returncode == 125
    assert done.stderr == f"Error: {broken} is not used: it has no 'unhang_learned'\n"
    broken.chmod(0o666)
    assert "others may write to it (mode 666); chmod 600 it" in run(str(broken)).stderr
    assert "it is no plain file" in run(str(tmp_path)).stderr


def test_bounds_that_contradict_each_other(path):
    """A minimum above a maximum is an error, and no budget."""
    done = run("--minimum", "10", "--maximum", "5", path)
    assert done.returncode == 125
    assert "--minimum is above --maximum or --startup" in done.stderr
    assert run("--margin", "0.5", path).returncode == 125


def test_a_file_without_scopes(tmp_path):
    """Says so, as a sentence or as JSON."""
    empty = tmp_path / "learned.json"
    empty.write_text('{"unhang_learned": 1, "scopes": {}}')
    empty.chmod(0o600)
    assert run(str(empty)).stdout == f"{empty} knows of no blocks yet\n"
    assert json.loads(run("--json", str(empty)).stdout)["budgets"] == []


@pytest.mark.parametrize(("output", "status"), [(">&-", 0), ("", 141)], ids=["closed", "not read"])
def test_output_that_nobody_reads(path, output, status):
    """It ends quietly: with 141, as other commands do, if there was somebody."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "unhang", "budgets", path]
    shell = ["sh", "-c", f'exec "$@" {output}', "sh", *command]
    done = subprocess.run(shell, stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (status, b"")
