"""A real Prometheus: it scrapes a real `unhang run --http`, and its own tool checks metrics, rules and dashboard."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from observe import looks
from support import LONG, until
from unhang.observe.endpoint import listen
from unhang.observe.site import Site

DOCS = Path(__file__).parents[2] / "docs"
# When it is told, a worker hangs and is killed; another one goes on until the standard input ends.
PROGRAM = """
import subprocess, sys, threading, time, unhang
HANG = "import time, unhang\\nwith unhang.expires(0.5, 'stuck'): time.sleep(600)"
over = threading.Event()

def listen():
    while sys.stdin.readline():
        subprocess.run([sys.executable, "-c", HANG])
    over.set()

threading.Thread(target=listen, daemon=True).start()
while not over.is_set():
    with unhang.expires(60, "step"):
        time.sleep(0.01)
"""
CONFIGURATION = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: unhang
    static_configs: [{{targets: ["localhost:{port}"]}}]
"""


def free_port():
    with listen("0") as chosen:
        return chosen.getsockname()[1]


@pytest.fixture
def no_proxy(monkeypatch):
    """What is on this host is asked directly."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def promtool(tmp_path):
    """Run it; fails without it."""
    program = shutil.which("promtool")
    assert program, "install Prometheus: these tests need the real one"

    def run(*arguments, text=None):
        return subprocess.run(
            [program, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
        )

    return run


@pytest.fixture
def running(no_proxy, popen, tmp_path):
    """`unhang run --http` with the program: the port, and what has one worker hang."""
    port = free_port()
    run = popen(
        [sys.executable, "-m", "unhang", "run", "--http", str(port), "--", sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def hang():
        run.stdin.write("\n")
        run.stdin.flush()

    yield port, hang
    run.stdin.close()
    assert run.wait(LONG) == 0


@pytest.fixture
def prometheus(popen, running, tmp_path):
    """Ask a Prometheus that scrapes it: a path of its interface → the data."""
    program = shutil.which("prometheus")
    assert program, "install Prometheus: these tests need the real one"
    port = free_port()
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(rules=DOCS / "alerts.yml", port=running[0]))
    process = popen(
        [
            program,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=subprocess.DEVNULL,
    )

    def ask(path, **parameters):
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
            with urllib.request.urlopen(url, timeout=LONG) as response:
                return json.load(response)["data"]
        return None  # it has not started yet

    yield ask
    process.terminate()
    process.wait(LONG)


def value(prometheus, query):
    """The value of the only series of a query; None if there is none."""
    data = prometheus("query", query=query)
    if not data or not data["result"]:
        return None
    assert len(data["result"]) == 1
    return float(data["result"][0]["value"][1])


def test_it_is_scraped(prometheus, running):
    """It is up, what happens is counted, and the alert about it fires."""
    until(lambda: value(prometheus, 'up{job="unhang"}') == 1)
    until(lambda: value(prometheus, "unhang_watchdog_up") == 1)
    until(lambda: value(prometheus, 'unhang_expirations_total{outcome="killed"}') == 0)
    assert firing(prometheus) == set()
    running[1]()
    until(lambda: value(prometheus, 'unhang_expirations_total{outcome="killed"}') == 1)
    until(lambda: value(prometheus, "sum(unhang_kills_total)") == 1)
    assert value(prometheus, 'sum(unhang_kills_total{signal="SIGTERM"})') == 1
    until(lambda: (value(prometheus, "rate(unhang_armings_total[5s])") or 0) > 1)
    assert value(prometheus, "unhang_ready") == 1
    until(lambda: firing(prometheus) == {"UnhangWorkerKilled"})


def firing(prometheus):
    return {alert["labels"]["alertname"] for alert in prometheus("alerts")["alerts"] if alert["state"] == "firing"}


def test_promtool_finds_nothing_in_the_metrics(running, promtool):
    """Neither a format that it cannot read, nor names against its conventions."""
    text = ""

    def scrape():
        nonlocal text
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://localhost:{running[0]}/metrics") as response:
            text = response.read().decode()

    until(lambda: "unhang_watchdog_up 1.0" in text, scrape)
    done = promtool("check", "metrics", text=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_promtool_can_read_the_alerts(promtool):
    """All of them."""
    done = promtool("check", "rules", str(DOCS / "alerts.yml"))
    assert done.returncode == 0, done.stderr
    assert f"{(DOCS / 'alerts.yml').read_text().count('- alert:')} rules found" in done.stdout


def with_values(expression):
    """With a value for each of Grafana's variables."""
    return re.sub(r"\$__\w+", "5m", expression).replace("$job", ".*").replace("$instance", ".*")


def test_promtool_can_read_the_dashboard(promtool, tmp_path):
    """Each expression, with a value for each of Grafana's variables."""
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = [
        {"record": f"panel:{number}", "expr": with_values(expression)} for number, expression in enumerate(expressions)
    ]
    # JSON is YAML as well.
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", "rules.yml")
    assert done.returncode == 0, done.stderr
    assert f"{len(expressions)} rules found" in done.stdout


# What each alert fires for, and what it does not: series in promtool's notation, a value a minute.
CASES = {
    "UnhangWatchdogDown": ({"unhang_watchdog_up": "0x20"}, {"unhang_watchdog_up": "1x20"}),
    "UnhangWorkersStalled": ({"unhang_workers_stalled": "2x20"}, {"unhang_workers_stalled": "0x20"}),
    "UnhangWorkersMissing": (
        {"unhang_workers": "7x20", "unhang_workers_wanted": "8x20"},
        {"unhang_workers": "8x20", "unhang_workers_wanted": "8x20"},
    ),
    "UnhangWorkerKilled": (
        {'unhang_expirations_total{outcome="killed"}': "0x15 1x5"},
        {'unhang_expirations_total{outcome="killed"}': "3x20"},
    ),
    "UnhangWorkerNotKilled": (
        {'unhang_expirations_total{outcome="refused"}': "0x15 1x5"},
        {'unhang_expirations_total{outcome="spared"}': "0x15 1x5"},
    ),
    "UnhangWorkerUnkillable": (
        {'unhang_events_total{event="unkillable"}': "0x15 1x5"},
        {'unhang_events_total{event="ended"}': "0x15 1x5"},
    ),
    "UnhangNearMisses": ({"unhang_near_misses_total": "0x10 5x10"}, {"unhang_near_misses_total": "0x10 1x10"}),
    "UnhangBudgetTight": (
        {'unhang_block_longest_seconds{scope="a"}': "50x20", 'unhang_block_budget_seconds{scope="a"}': "60x20"},
        {'unhang_block_longest_seconds{scope="a"}': "50x20", 'unhang_block_budget_seconds{scope="b"}': "10x20"},
    ),
    "UnhangWatchdogLate": (
        {
            'unhang_expiry_lateness_seconds_bucket{le="1.0"}': "0x20",
            'unhang_expiry_lateness_seconds_bucket{le="5.0"}': "0+1x20",
            'unhang_expiry_lateness_seconds_bucket{le="+Inf"}': "0+1x20",
        },
        {
            'unhang_expiry_lateness_seconds_bucket{le="1.0"}': "0+1x20",
            'unhang_expiry_lateness_seconds_bucket{le="5.0"}': "0+1x20",
            'unhang_expiry_lateness_seconds_bucket{le="+Inf"}': "0+1x20",
        },
    ),
    "UnhangWatchdogSlow": (
        {"unhang_watchdog_longest_turn_seconds": "0.7x20"},
        {"unhang_watchdog_longest_turn_seconds": "0.1x20"},
    ),
    "UnhangHostAway": (
        {"unhang_watchdog_overslept_seconds_total": "0x15 60x5"},
        {"unhang_watchdog_overslept_seconds_total": "0x15 2x5"},
    ),
    "UnhangRefusing": (
        {'unhang_watchdog_dropped_total{kind="refused"}': "1x15 2x5"},
        {'unhang_watchdog_dropped_total{kind="refused"}': "1x20"},
    ),
    "UnhangEventsMissed": ({"unhang_events_missed_total": "0x15 9x5"}, {"unhang_events_missed_total": "0x20"}),
}


def outcome(series):
    """A test of promtool in which no alert is expected: it fails, and says which ones there were."""
    return {
        "interval": "1m",
        "input_series": [
            {"series": name.replace("{", '{job="j",', 1) if "{" in name else f'{name}{{job="j"}}', "values": values}
            for name, values in series.items()
        ],
        "alert_rule_test": [{"eval_time": "19m", "alertname": name} for name in CASES],
    }


def alerts_for(promtool, directory, series):
    """The alerts that fire at the end of some series."""
    test = {"rule_files": [str(DOCS / "alerts.yml")], "evaluation_interval": "1m", "tests": [outcome(series)]}
    (directory / "test.yml").write_text(json.dumps(test))
    done = promtool("test", "rules", "test.yml")
    return set(re.findall(r"alertname: (\w+), time", done.stdout + done.stderr))


# What happens for the first time, and the alert for it.
FIRSTS = {
    "UnhangWorkerKilled": looks.picture(events=[looks.event("killed", signal="SIGTERM", hang="lock")]),
    "UnhangWorkerNotKilled": looks.picture(events=[looks.event("refused")]),
    "UnhangWorkerUnkillable": looks.picture(events=[looks.event("unkillable", signal="SIGKILL", hang="disk")]),
    "UnhangRefusing": looks.picture(watchdog=looks.watchdog(dropped={"silent connections": 1})),
    "UnhangEventsMissed": looks.picture(missed=1),
}


def series_of(happened):
    """What is scraped before and behind what happens: the series, in promtool's notation, a value a minute."""
    site = Site(clock=lambda: looks.NOW)
    site.saw(looks.picture())
    before = scraped(site)
    site.saw(happened)
    behind = scraped(site)
    assert set(before) <= set(behind)
    return {name: f"{before.get(name, '_')}x15 {value}x5" for name, value in behind.items()}


def scraped(site):
    text = site.answer("/metrics").body.decode()
    found = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, value in found if not name.startswith("unhang_watchdog_process_")}


@pytest.mark.parametrize("name", FIRSTS)
def test_alerts_for_what_happens_for_the_first_time(promtool, tmp_path, name):
    """Prometheus sees no increase in a series that appears: it has to be there before."""
    assert alerts_for(promtool, tmp_path, series_of(FIRSTS[name])) == {name}


PANELS = {
    "Expirations by what became of them": "UnhangWorkerKilled",
    "Kills by how the worker hung": "UnhangWorkerKilled",
    "How kills ended": "UnhangWorkerUnkillable",
    "Refused or left out": "UnhangRefusing",
    "Events": "UnhangWorkerKilled",
}


@pytest.mark.parametrize("title", PANELS)
def test_panels_show_what_happens_for_the_first_time(promtool, tmp_path, title):
    """One line rises."""
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    panel = next(panel for panel in dashboard["panels"] if panel["title"] == title)
    rises = f"count(({with_values(panel['targets'][0]['expr'])}) > 0)"
    test = outcome(series_of(FIRSTS[PANELS[title]]))
    test["promql_expr_test"] = [{"expr": rises, "eval_time": "17m", "exp_samples": [{"labels": "{}", "value": 1}]}]
    del test["alert_rule_test"]
    (tmp_path / "test.yml").write_text(json.dumps({"evaluation_interval": "1m", "tests": [test]}))
    done = promtool("test", "rules", "test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_case_for_each_alert():
    """None is forgotten."""
    assert set(re.findall(r"- alert: (\w+)", (DOCS / "alerts.yml").read_text())) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_alerts(promtool, tmp_path, name):
    """Each fires for what it is about, alone, and not for what is in order."""
    bad, good = CASES[name]
    assert alerts_for(promtool, tmp_path, bad) == {name}
    assert alerts_for(promtool, tmp_path, good) == set()
