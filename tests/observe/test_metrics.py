"""Metrics: what is counted, in how many series, and that dashboard, alerts and documentation name what there is."""

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from observe import looks
from observe.looks import armed, event, picture, row
from unhang._core.histogram import Durations, Histogram
from unhang.observe import measures, metrics
from unhang.observe.counters import CLASSES, EVENTS, SIGNALS, Counters, Spread, by_kind
from unhang.observe.health import Limits
from unhang.observe.labels import OTHER, ScopeLabels, label_of
from unhang.observe.measures import MEASURES, State

DOCS = Path(__file__).parents[2] / "docs"
SECOND = 10**9
HOSTILE = '"} 1\nunhang_watchdog_up 0 \x1b[2J\\ \u202e\ud800'


def durations(*seconds, first=(), budget=0):
    steady = Histogram.of([round(each * SECOND) for each in seconds])
    return Durations(steady, Histogram.of(first), budget=budget * SECOND)


def a_full_state():
    """Something in every metric."""
    state = State(Limits(min_workers=2))
    state.picture = picture(
        row(1, armed(), sequence=10),
        watchdog=looks.watchdog(dropped={"bad message": 3}),
        events=[
            event("killed", late=0.002, waited=0.3, signal="SIGTERM", hang="lock"),
            event("ended", late=0.002, signal="SIGKILL", hang="lock"),
            event("near miss", late=0.1),
        ],
    )
    state.counters.see(state.picture)
    state.durations = {"step": durations(0.1, 0.2, 3.0, budget=60)}
    return state


def samples(state):
    """What Prometheus would read: (name, labels) → value."""
    text = metrics.render(state).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_happened_is_counted():
    """Each event once, by outcome, signal and class."""
    read = samples(a_full_state())
    assert read["unhang_expirations_total", (("outcome", "killed"),)] == 1
    assert read["unhang_expirations_total", (("outcome", "spared"),)] == 1
    assert read["unhang_expirations_total", (("outcome", "observed"),)] == 0
    assert read["unhang_near_misses_total", ()] == 1
    assert read["unhang_kills_total", (("class", "lock"), ("signal", "SIGTERM"))] == 1
    ended = (("class", "lock"), ("outcome", "ended"), ("signal", "SIGKILL"))
    assert read["unhang_kill_endings_total", ended] == 1
    assert read["unhang_events_total", (("event", "near miss"),)] == 1
    assert read["unhang_expiry_lateness_seconds_bucket", (("le", "0.0025"),)] == 1
    assert read["unhang_expiry_lateness_seconds_count", ()] == 2
    assert read["unhang_expiry_lateness_seconds_sum", ()] == pytest.approx(0.102)
    assert read["unhang_kill_delay_seconds_sum", ()] == 0.3
    assert read["unhang_watchdog_dropped_total", (("kind", "bad message"),)] == 3


def test_what_is_seen_is_told():
    """Workers, timers, and what /readyz would say."""
    read = samples(a_full_state())
    assert read["unhang_watchdog_up", ()] == 1
    assert read["unhang_ready", ()] == 0
    assert (read["unhang_workers", ()], read["unhang_workers_wanted", ()]) == (1, 2)
    assert read["unhang_timers", ()] == 1
    assert read["unhang_nearest_deadline_seconds", ()] == 599
    assert read["unhang_longest_stall_seconds", ()] == 1
    assert read["unhang_watchdog_info", (("host", "gpu3"), ("version", "1.2"))] == 1


def test_while_the_watchdog_is_gone():
    """It is down, nothing is told that is not known, and no counter falls."""
    state = a_full_state()
    before = samples(state)
    state.picture = None
    after = samples(state)
    assert (after["unhang_watchdog_up", ()], after["unhang_ready", ()]) == (0, 0)
    assert ("unhang_workers", ()) not in after
    of_counters = [key for key in after if key[0].endswith("_total")]
    assert {key: before[key] for key in of_counters} == {key: after[key] for key in of_counters}
    assert ("unhang_expirations_total", (("outcome", "killed"),)) in of_counters


def test_armings_are_added_up_over_workers_that_come_and_go():
    """Also when the number of one falls, as a hostile one's may."""
    counters = Counters()
    counters.see(picture(row(1, sequence=10), row(2, sequence=5)))
    counters.see(picture(row(1, sequence=12), row(3, sequence=1)))
    counters.see(picture(row(1, sequence=2)))
    counters.see(picture(row(1, sequence=3)))
    assert counters.armings == 10 + 5 + 2 + 1 + 1


def test_a_late_look_at_somebody_held_is_no_lateness():
    """A debugger may hold it for hours."""
    counters = Counters()
    counters.see(picture(events=[event("held", late=5000.0)]))
    assert counters.lateness.cumulative()[-1] == ("+Inf", 0)
    assert counters.expirations["held"] == 1


def test_durations_of_blocks():
    """Buckets of Prometheus end where learned ones do, so none is split; the sum is right by a quarter."""
    read = samples(a_full_state())
    scope = ("scope", "step")
    assert read["unhang_block_duration_seconds_count", (scope,)] == 3
    assert read["unhang_block_duration_seconds_sum", (scope,)] == pytest.approx(3.3, rel=0.25)
    below = {labels[0][1]: value for (name, labels), value in read.items() if name.endswith("duration_seconds_bucket")}
    assert below["0.067108864"] == 0
    assert below["0.268435456"] == 2
    assert below["4.294967296"] == 3
    assert read["unhang_block_longest_seconds", (scope,)] == 3
    assert read["unhang_block_budget_seconds", (scope,)] == 60


@given(st.lists(st.floats(1e-6, 1e5), max_size=50))
def test_durations_are_cumulative(seconds):
    """Growing, with all of them below infinity, and each below the bounds that it is below, but for one bucket."""
    state = State(durations={"step": durations(*seconds)})
    below = [
        (float(dict(labels)["le"]), value)
        for (name, labels), value in samples(state).items()
        if name == "unhang_block_duration_seconds_bucket"
    ]
    assert below == sorted(below)
    for bound, count in below:
        assert count == sum(each < bound or math.isinf(bound) for each in map(_in_nanoseconds, seconds))


def _in_nanoseconds(seconds):
    return round(seconds * SECOND) / SECOND


def test_scopes_that_look_the_same_are_one_series():
    """Two series with the same labels would make the whole scrape fail."""
    state = State(durations={"/a/x/train.py:1": durations(1, budget=5), "/b/x/train.py:1": durations(2, 3, budget=7)})
    read = samples(state)
    assert read["unhang_block_duration_seconds_count", (("scope", "x/train.py:1"),)] == 3
    assert read["unhang_block_budget_seconds", (("scope", "x/train.py:1"),)] == 7


def test_a_bounded_number_of_scopes():
    """The most used have their own series, and keep them; all others share one."""
    state = State(durations={f"scope {number}": durations(*[1] * (number % 7 + 1)) for number in range(1000)})
    first = {labels for name, labels in samples(state) if name == "unhang_block_duration_seconds_count"}
    assert len(first) == 101
    assert (("scope", "scope 6"),) in first
    assert (("scope", "scope 0"),) not in first
    state.durations = {f"later {number}": durations(*[1] * 100) for number in range(1000)} | state.durations
    assert {labels for name, labels in samples(state) if name == "unhang_block_duration_seconds_count"} == first


@given(st.text(st.characters(exclude_categories=[])))
def test_a_label_can_be_read(scope):
    """Printable, short, and the same again."""
    label = label_of(scope)
    assert label.isprintable()
    assert len(label) <= 120
    label.encode()
    if len(scope) < 50 and scope.isprintable() and not scope.startswith("/"):
        assert label == scope


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 5), max_size=12), st.integers(0, 4))
def test_labels_are_bounded_and_stay(counts, most):
    """However often and in whatever order they come."""
    labels = ScopeLabels(most)
    first = labels.of(counts)
    assert len(set(first.values()) - {OTHER}) <= most
    again = labels.of(dict(reversed(counts.items())))
    assert again == first


def test_hostile_texts_make_no_other_metrics():
    """Whatever a worker calls its blocks and itself, the scrape has the same series as with harmless names."""
    names = {name for name, _ in samples(a_full_state())}
    state = a_full_state()
    state.picture = picture(
        row(1, armed(HOSTILE), host=HOSTILE, job=HOSTILE),
        events=[event(HOSTILE), event("killed", signal=HOSTILE, hang=HOSTILE, scope=HOSTILE)],
        watchdog=looks.watchdog(dropped={f"{HOSTILE} {number}": 1 for number in range(100)}),
    )
    state.counters.see(state.picture)
    state.durations = {HOSTILE: durations(1, budget=1)}
    read = samples(state)
    assert {name for name, _ in read} == names
    assert read["unhang_watchdog_up", ()] == 1
    assert ("unhang_kills_total", (("class", "other"), ("signal", "other"))) in read
    assert sum(name == "unhang_watchdog_dropped_total" for name, _ in read) == 33


kinds = st.sampled_from(EVENTS) | st.text(max_size=5)
texts = st.sampled_from([*SIGNALS[:2], *CLASSES[:2], ""]) | st.text(max_size=5)
amounts = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.builds(event, kinds, signal=texts, hang=texts, late=amounts, waited=amounts), max_size=30))
def test_counters_only_grow(happened):
    """In one look or in many, and to the same numbers."""
    at_once, one_by_one = Counters(), Counters()
    at_once.see(picture(events=happened))
    for each in happened:
        before = dict(one_by_one.events)
        one_by_one.see(picture(events=[each]))
        assert all(one_by_one.events[kind] >= count for kind, count in before.items())
    assert (at_once.events, at_once.kills, at_once.endings) == (one_by_one.events, one_by_one.kills, one_by_one.endings)
    assert sum(at_once.events.values()) == len(happened)
    assert len(at_once.events) <= len(EVENTS) + 1
    assert at_once.lateness.cumulative() == one_by_one.lateness.cumulative()


@given(st.lists(st.floats(-1, 100)))
def test_a_spread(values):
    """How many are no greater than each bound."""
    spread = Spread((0.5, 1, 50))
    for value in values:
        spread.add(value)
    found = spread.cumulative()
    assert [bound for bound, _ in found] == ["0.5", "1", "50", "+Inf"]
    assert [count for _, count in found] == [
        sum(value <= bound for value in values) for bound in (0.5, 1, 50, math.inf)
    ]
    assert spread.total == pytest.approx(sum(max(0, value) for value in values))


@given(st.dictionaries(st.text(), st.integers(0, 10)))
def test_kinds_of_what_was_dropped(dropped):
    """Nothing is lost, and there are not too many kinds."""
    found = by_kind(dropped)
    assert sum(found.values()) == sum(dropped.values())
    assert len(found) <= 33


def test_names_follow_the_conventions():
    """One prefix, base units, _total for what only grows and for nothing else."""
    for measure in MEASURES:
        assert re.fullmatch(r"unhang_[a-z_]+", measure.name)
        assert measure.name.endswith("_total") == (measure.kind == "counter")
        assert not re.search(r"_(ms|milliseconds|nanoseconds|minutes|percent|kb|mb)\b", measure.name)
        assert measure.help[0].isupper() or measure.help[0].isdigit()
        assert measure.help.endswith(".")
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)


def test_every_measure_has_samples():
    """With a watchdog to which all has happened, none is empty."""
    state = a_full_state()
    assert [measure.name for measure in MEASURES if not list(measure.read(state))] == []
    assert measures._cumulated(state.counters.delay)


# What dashboards, alerts and documentation say.

KNOWN = {
    **{
        f"{measure.name}{suffix}": {*measure.labels} | ({"le"} if suffix == "_bucket" else set())
        for measure in MEASURES
        for suffix in (("_bucket", "_sum", "_count") if measure.kind == "histogram" else ("",))
    },
    # Given by prometheus-client for the watchdog's process.
    "unhang_watchdog_process_cpu_seconds_total": set(),
}
# What Prometheus adds to each series.
ADDED = {"job", "instance"}


def named(expression):
    """The metrics that an expression names, each with the labels that it selects."""
    without_texts = re.sub(r'"[^"]*"', '""', expression)
    for name, selectors in re.findall(r"\b(unhang_[a-z_]+)(?:\{([^}]*)\})?", without_texts):
        yield name, set(re.findall(r"([a-z_]+)\s*[=!~]+", selectors or ""))


def grouped(expression):
    """The labels by which an expression groups."""
    lists = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression)
    return {label.strip() for each in lists for label in each.split(",")}


def check(expression):
    found = list(named(expression))
    assert found, expression
    for name, labels in found:
        assert name in KNOWN, f"{name} is not exported: {expression}"
        assert labels <= KNOWN[name] | ADDED, f"{name} has no label {labels - KNOWN[name] - ADDED}"
    assert grouped(expression) <= set.union(ADDED, *(KNOWN[name] for name, _ in found)), expression


def panels():
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_the_dashboard_shows_what_is_exported(panel):
    """Each expression, and each label in a legend; and a panel has what Grafana needs."""
    assert panel["type"] in {"stat", "timeseries"}
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        check(target["expr"])
        of_legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert of_legend <= set.union(ADDED, *(KNOWN[name] for name, _ in named(target["expr"])))
        assert target["datasource"] == panel["datasource"]


def test_the_dashboard_can_be_imported():
    """No ids twice, no panels on top of each other, and every variable that is used is there."""
    text = (DOCS / "grafana-dashboard.json").read_text()
    dashboard = json.loads(text)
    assert dashboard["id"] is None
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", text))
    assert used == variables


def alerts():
    """The alerts as (name, expression): one key a line, so that no other library has to read it."""
    text = (DOCS / "alerts.yml").read_text()
    return re.findall(r"- alert: (\w+)\n +expr: (.*)\n", text)


@pytest.mark.parametrize(("name", "expression"), alerts(), ids=[name for name, _ in alerts()])
def test_alerts_are_about_what_is_exported(name, expression):
    """Each metric, and each label; and the values of labels that are a fixed set."""
    check(expression)
    fixed = {*EVENTS, *Counters().expirations}
    for value in re.findall(r'(?:outcome|event)=~?"([^"]*)"', expression):
        assert set(value.split("|")) <= fixed


def test_there_are_alerts():
    """Each with a summary; the pattern above has found them all."""
    text = (DOCS / "alerts.yml").read_text()
    assert len(alerts()) == text.count("- alert:") == text.count("summary:") == text.count("description:")


def test_the_documentation_lists_all_metrics():
    """With kind, labels and meaning, in the order in which they are exported."""
    listed = re.findall(
        r"^\| `(unhang_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", (DOCS / "howto/monitoring.md").read_text(), re.MULTILINE
    )
    wanted = [
        (measure.name, measure.kind, " ".join(f"`{label}`" for label in measure.labels), measure.help)
        for measure in MEASURES
    ]
    assert listed == wanted, "\n" + "\n".join(
        f"| `{name}` | {kind} | {labels} | {text} |" for name, kind, labels, text in wanted
    )
