"""Metrics in the format that Prometheus reads, with prometheus-client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from unhang.observe.measures import MEASURES, Cumulated, Measure, State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Families(Collector):
    """All metrics, of a state as it is when they are asked for."""

    def __init__(self, state: State) -> None:
        self._state = state
        # Processor time, memory and descriptors of the watchdog's process.
        self._process = ProcessCollector("unhang_watchdog", self._pid, registry=None)

    def _pid(self) -> int:
        picture = self._state.picture
        return 0 if picture is None else picture.watchdog.pid

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        for measure in MEASURES:
            yield _family(measure, self._state)
        if self._state.picture is not None:
            yield from self._process.collect()


def _family(measure: Measure, state: State) -> Metric:
    family: Any
    if measure.kind == "histogram":
        family = HistogramMetricFamily(measure.name, measure.help, labels=measure.labels)
    elif measure.kind == "counter":
        family = CounterMetricFamily(measure.name, measure.help, labels=measure.labels)
    else:
        family = GaugeMetricFamily(measure.name, measure.help, labels=measure.labels)
    for labels, value in measure.read(state):
        if isinstance(value, Cumulated):
            family.add_metric(labels, value.buckets, value.total)
        else:
            family.add_metric(labels, value)
    return family  # type: ignore[no-any-return]


def render(state: State) -> bytes:
    """All metrics as text. Of the state only the labels of scopes change."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(replace(state)))
    return generate_latest(registry)
