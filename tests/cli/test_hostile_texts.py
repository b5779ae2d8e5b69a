"""What a worker calls its blocks, its job and its files reaches no terminal as it is, whatever shows it."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile

import pytest
from test_top import TOP, Terminal

import workers
from unhang._core.texts import escaped

UNHANG = [sys.executable, "-m", "unhang"]
# To clear the screen and set its title (C0, C1), to turn the direction of text, to hide, to begin a line.
HOSTILE = "a\x1b]0;t\x07\x9b2J\x9b31m\u202eb\u2066\u200b\x7f\u2028c\U000e0041\x85d"
HANGS = f"""
import sys, threading, time, unhang
threading.current_thread().name = {HOSTILE!r}
def f():
    with unhang.expires(after=0.5, scope={HOSTILE!r}):
        time.sleep(60)
exec(compile("f()", {HOSTILE!r}, "exec"))
"""


def run(*arguments, command=(), **environment):
    return subprocess.run(
        [*UNHANG, *arguments, *command],
        capture_output=True,
        timeout=30,
        check=False,
        env={**os.environ, "UNHANG_JOB": HOSTILE, "RANK": "0", **environment},
    )


def is_harmless(output):
    """Nothing in it moves a cursor, or turns or hides text."""
    text = output.decode()
    assert text == escaped(text, "\n")
    return text


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A directory with the report of a worker that does all this, and what was printed about it."""
    directory = tmp_path_factory.mktemp("reports")
    directory.chmod(0o700)
    command = [sys.executable, "-c", HANGS, HOSTILE]
    done = run("run", "--signal", "none", "--events", "-", "--report-dir", str(directory), "--", command=command)
    return str(directory), done


def test_what_run_prints_is_harmless(reports):
    """The log, the report in it, and the events on standard error, which are JSON and say all that there was to say."""
    _, done = reports
    lines = is_harmless(done.stderr).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert HOSTILE in {event.get("scope") for event in events}
    assert any(escaped(HOSTILE[:3]) in line for line in lines if not line.startswith("{"))


@pytest.mark.parametrize("options", [[], ["--list"], ["--json"], ["--list", "--json"]])
def test_what_report_prints_is_harmless(reports, options):
    """As text and as JSON, one report and all of them."""
    done = run("report", *options, "--dir", reports[0])
    assert done.returncode == 0
    text = is_harmless(done.stdout)
    if "--json" in options:
        found = json.loads(text)
        assert (found[0] if "--list" in options else found)["job"] == HOSTILE
    is_harmless(done.stderr)


@pytest.fixture
def address(shared_server, shared_client, start, monkeypatch):
    """That of a watchdog with such a worker."""
    monkeypatch.setenv("UNHANG_JOB", HOSTILE)
    worker = start(workers.step_by_step, shared_client)
    worker.heard()
    worker.told("enter", 600, HOSTILE)
    return shared_server.address


def test_what_status_prints_is_harmless(address):
    """The table, and the JSON, which has the scope as it is."""
    table = is_harmless(run("status", "--address", address).stdout)
    assert "\\x1b]0;t" in table
    document = json.loads(is_harmless(run("status", "--json", "--address", address).stdout))
    assert document["workers"][0]["job"] == HOSTILE


def test_what_check_prints_is_harmless(address):
    """It names the block of a worker that stalls."""
    done = run("check", "--max-stall", "0.001", "--address", address)
    assert done.returncode == 1
    assert "\\x1b" in is_harmless(done.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", HOSTILE],
        ["run", f"--{HOSTILE}"],
        ["run", "--learn", HOSTILE, "true"],
        ["run", "--report-dir", f"/dev/null/{HOSTILE}", "true"],
        ["run", "--events", f"/dev/null/{HOSTILE}", "true"],
        ["run", "--after", HOSTILE, "true"],
        ["report", HOSTILE],
        ["report", f"./{HOSTILE}"],
        ["report", "--dir", HOSTILE],
        ["report", "--list", "--dir", f"/{HOSTILE}"],
        ["budgets", HOSTILE],
        ["status", "--address", f"/{HOSTILE}"],
        ["check", "--address", f"/{HOSTILE}"],
        ["top", "--address", f"/{HOSTILE}"],
        ["serve", "--address", f"/dev/null/{HOSTILE}"],
        ["serve", "--user", HOSTILE],
        [HOSTILE],
    ],
)
def test_what_is_said_of_a_wrong_argument_is_harmless(arguments, tmp_path):
    """File names come from programs too."""
    done = subprocess.run([*UNHANG, *arguments], capture_output=True, timeout=30, check=False, cwd=tmp_path)
    is_harmless(done.stdout)
    is_harmless(done.stderr)


def test_half_a_pair_does_not_keep_an_event_from_being_written():
    """A directory whose name is no UTF-8 is in the events all the same."""
    with tempfile.TemporaryDirectory() as above:
        directory = f"{above}/\udcff"
        done = run(
            "run", "--signal", "none", "--events", "-", "--report-dir", directory, "--", sys.executable, "-c", HANGS
        )
    events = [json.loads(line) for line in is_harmless(done.stderr).splitlines() if line.startswith("{")]
    assert "report" in {event["event"] for event in events}
    assert all(not event["event"].startswith("lost") for event in events)


def test_a_terminal_is_not_told_to_do_anything_by_a_name(address, popen):
    """`unhang top` draws with escapes of its own; those of a scope are shown as text."""
    with contextlib.closing(Terminal(popen, [*TOP, "--address", address], {})) as top:
        top.until(lambda lines: any("\\x1b]0;t" in line for line in lines))
        assert b"\x07" not in top.seen
        assert "\x9b" not in top.seen.decode("utf-8", "replace")
