"""`unhang report`, run as a user runs it."""

import json
import os
import subprocess
import sys

import msgspec
import pytest

from report import samples
from unhang.report import html, text
from unhang.report.model import decode
from unhang.report.store import ReportStore


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "unhang", "report", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def directory(tmp_path):
    tmp_path.chmod(0o700)
    return str(tmp_path)


@pytest.fixture
def path(directory):
    return ReportStore(directory).write(samples.slow_loader())


def test_a_report_as_text(path):
    """What `unhang run` printed, and where the file is."""
    done = run(path)
    assert done.returncode == 0
    assert done.stdout == f"{text.render(samples.slow_loader())}\nreport: {path}\n"


def test_a_report_as_a_page(path):
    """On standard output."""
    assert run("--html", path).stdout == html.render(samples.slow_loader()) + "\n"


def test_a_report_as_json(path):
    """For people to look at, and for programs the same report."""
    done = run("--json", path)
    assert decode(done.stdout.encode()) == samples.slow_loader()
    assert len(done.stdout.splitlines()) > 100


def test_the_newest_report_is_shown(directory, path):
    """Of the directory that is named, in the environment too."""
    os.utime(path, (1, 1))
    newest = ReportStore(directory).write(msgspec.structs.replace(samples.lone(), id="newest"))
    for done in (run("--dir", directory), run(UNHANG_REPORT_DIR=directory)):
        assert done.stdout.splitlines()[-1] == f"report: {newest}"


def test_the_default_directory(tmp_path):
    """That of the user."""
    path = ReportStore(str(tmp_path / "unhang" / "reports")).write(samples.lone())
    done = run(XDG_STATE_HOME=str(tmp_path))
    assert done.stdout.splitlines()[-1] == f"report: {path}"


def test_hostile_reports_are_harmless_in_a_terminal(directory):
    """No escape sequence comes out, as text or in JSON."""
    path = ReportStore(directory).write(samples.hostile())
    for arguments in ((), ("--json",)):
        done = run(path, *arguments)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout


def test_output_that_knows_ascii_only(path):
    """It shows what it can, and nothing fails."""
    done = run(path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2]", "no report of unhang"),
        (b'{"id": "x", "time": "y"}', "no report of unhang"),
        (b'{"unhang_report": 1}', "not a whole report"),
        (b'{"unhang_report": 1, "id": "x", "time": "y", "workers": [{"pid": "z"}]}', "$.workers[0].pid"),
        (b'{"unhang_report": 2, "news": []}', "needs a newer unhang"),
    ],
)
def test_what_is_no_report(tmp_path, content, words):
    """One line that says what is wrong, and status 125."""
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    refused(run(str(path)), words)


def refused(done, words):
    assert done.returncode == 125
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert words in done.stderr


def test_places_without_a_report(tmp_path):
    """An empty directory, none, a directory for a file, a pipe that nobody writes to."""
    refused(run("--dir", str(tmp_path)), f"there is no report in {tmp_path}")
    refused(run("--dir", str(tmp_path / "none")), "there is no report in")
    refused(run(str(tmp_path)), "unhang report --dir")
    refused(run(UNHANG_REPORT_DIR="none"), "no reports are kept")
    os.mkfifo(tmp_path / "pipe")
    refused(run(str(tmp_path / "pipe")), "not a plain file")


def test_a_file_that_may_not_be_read(tmp_path, other_user):
    """It is said so."""
    path = tmp_path / "file.json"
    path.write_text("{}")
    path.chmod(0o600)
    code = f"import os, sys; os.setuid({other_user}); sys.argv[1:] = ['report', {str(path)!r}]"
    done = subprocess.run(
        [sys.executable, "-c", f"from unhang.cli.main import main; import unhang.cli.report; {code}; main()"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    refused(done, "Permission denied")


def test_one_form_at_a_time(path):
    """Both are a wrong call."""
    done = run("--json", "--html", path)
    assert done.returncode == 125
    assert "choose one" in done.stderr


def test_every_option_has_a_twin_in_the_environment(path):
    """Help names it, and it works."""
    usage = run("--help").stdout
    options = [line for line in usage.splitlines() if line.startswith("  --")]
    assert " ".join(usage.split()).count("env var: UNHANG_REPORT_") == len(options) == 4
    assert json.loads(run(path, UNHANG_REPORT_JSON="1").stdout)["id"] == samples.slow_loader().id
    assert run(path, UNHANG_REPORT_HTML="1").stdout.startswith("<!doctype html>")


@pytest.mark.parametrize(("output", "status"), [(">&-", 0), ("", 141)], ids=["closed", "not read"])
def test_output_that_nobody_reads(path, output, status):
    """It ends quietly: with 141, as other commands do, if there was somebody."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "unhang", "report", path]
    shell = ["sh", "-c", f'exec "$@" {output}', "sh", *command]
    done = subprocess.run(shell, stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (status, b"")


@pytest.fixture
def several(directory):
    """Three reports, of which two have ids that begin alike; the paths, the newest last."""
    paths = []
    for at, id_ in enumerate(("c3a6844a", "c3b00000", "c3a6")):
        report = msgspec.structs.replace(samples.lone(), id=id_, headline=f"headline of {id_}", job="train")
        paths.append(ReportStore(directory).write(report))
        os.utime(paths[-1], (at + 1, at + 1))
    return paths


def test_a_report_is_found_by_its_id(directory, several):
    """The id that each line names; its beginning is enough, and one that is an id as a whole is not ambiguous."""
    for id_, path in (("c3a6844a", several[0]), ("c3b", several[1]), ("c3a6", several[2])):
        assert run(id_, "--dir", directory).stdout.splitlines()[-1] == f"report: {path}"


def test_an_id_that_does_not_name_one_report(directory, several):
    """Several, or none: what there is, and what to do. Status 125."""
    for id_, expected in (
        ("c3", "3 reports have an id that begins with 'c3': c3a6, c3b00000, c3a6844a"),
        ("d", "no report in " + directory),
        ("*", "`unhang report --list` shows all"),
    ):
        done = run(id_, "--dir", directory)
        assert done.returncode == 125
        assert expected in done.stderr
    assert "--dir names another directory" in run("d", "--dir", f"{directory}/none").stderr


def test_all_reports_are_listed(directory, several):
    """The newest first: time, id, job, headline; one that is broken does not keep the others from being shown."""
    with open(several[0], "w") as file:
        file.write("{")
    os.utime(several[0], (1, 1))
    lines = run("--list", "--dir", directory).stdout.splitlines()
    assert lines[0].split() == ["TIME", "ID", "JOB", "HEADLINE"]
    places = [lines[1 + at].index(id_) for at, id_ in enumerate(("c3a6 ", "c3b00000", "c3a6844a"))]
    assert places == [lines[0].index("ID")] * 3
    assert all("train" in line and "headline of c3" in line for line in lines[1:3])
    assert "it is not JSON" in lines[3]
    listed = json.loads(run("--list", "--json", "--dir", directory).stdout)
    assert [entry["file"] for entry in listed] == several[::-1]
    assert listed[0] == {
        "time": samples.lone().time,
        "id": "c3a6",
        "job": "train",
        "headline": "headline of c3a6",
        "file": several[2],
    }


def test_a_list_without_reports(tmp_path):
    """Nothing on standard output, an empty list as JSON; and forms that exclude each other are refused."""
    done = run("--list", "--dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    assert "there is no report in" in done.stderr
    assert json.loads(run("--list", "--json", "--dir", str(tmp_path)).stdout) == []
    for arguments in (("--list", "--html"), ("--list", "c3")):
        assert run(*arguments, "--dir", str(tmp_path)).returncode == 125


def test_a_list_of_hostile_reports_is_harmless(directory):
    """No escape sequence, and a line for each."""
    ReportStore(directory).write(samples.hostile())
    done = run("--list", "--dir", directory)
    assert len(done.stdout.splitlines()) == 2
    assert "\x1b" not in done.stdout
