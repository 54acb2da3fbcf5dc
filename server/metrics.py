"""Numbers for Prometheus, in a registry of their own per application."""

import heapq
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from crdt.lag import STEPS_S, Lag
from server.run_metrics import RunMetrics

_REQUEST_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TOP_ROOMS: Final = 5
"""More names would make as many series as there are canvases."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """Everything that is counted; one object per application, so that two in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "darkroom_http_requests", "HTTP requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self._request_seconds = Histogram(
            "darkroom_http_request_duration_seconds",
            "Time to the end of an HTTP answer.",
            ["method", "route"],
            buckets=_REQUEST_BUCKETS_S,
            registry=self.registry,
        )
        self._started = Counter("darkroom_runs_requested", "Runs asked for here.", ["provider"], registry=self.registry)
        self._updates = Counter(
            "darkroom_document_updates", "Document updates committed by this process.", registry=self.registry
        )

        self._refused_edits = Counter(
            "darkroom_edits_refused", "Websocket edits refused: the token may only look.", registry=self.registry
        )
        self._refused_presence = Counter(
            "darkroom_presence_refused",
            "Awareness messages with a state that was refused: too large, no JSON, or of somebody else's client id.",
            registry=self.registry,
        )
        self._limited = Counter(
            "darkroom_rate_limited", "Times a websocket was not read for a while.", registry=self.registry
        )
        self._closed = Counter(
            "darkroom_websockets_closed", "Websockets closed by the server.", ["code", "reason"], registry=self.registry
        )
        self._refused_sockets = Counter(
            "darkroom_websockets_refused", "Websockets closed for their token.", ["code"], registry=self.registry
        )
        self.runs = RunMetrics(self.registry)

    def refused(self, what: str) -> None:
        """Count an edit of somebody who may only look ("read-only"), or a presence that is not shown."""
        (self._refused_edits if what == "read-only" else self._refused_presence).inc()

    def rate_limited(self) -> None:
        """Count a websocket that is held back."""
        self._limited.inc()

    def websocket_closed(self, code: int, word: str) -> None:
        """Count a websocket that this server closed, by the word its reason begins with."""
        self._closed.labels(str(code), word).inc()

    def websocket_refused(self, code: int) -> None:
        """Count a websocket that was closed for its token."""
        self._refused_sockets.labels(str(code)).inc()

    def request_done(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count an answered HTTP request; `route` is the address's pattern, never the address."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(duration_s)

    def run_requested(self, provider: str) -> None:
        """Count a run that was made."""
        self._started.labels(provider).inc()

    def updates_committed(self, count: int) -> None:
        """Count document updates that are in SQL now."""
        self._updates.inc(count)

    def observe_turns(self, lag: Lag) -> None:
        """Add the time that rooms take from reading a message to the last write of it."""
        self.registry.register(_Turns(lag))

    def weigh_rooms(self, weigh: Callable[[], Mapping[str, int]]) -> None:
        """Add the sizes of documents: of all together, and of the `TOP_ROOMS` largest by name."""
        self.registry.register(_Weights(weigh))

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Add a number that is read when it is asked for."""
        Gauge(f"darkroom_{name}", meaning, registry=self.registry).set_function(read)

    def render(self, accept: str) -> tuple[bytes, str]:
        """All numbers as text, and its content type, for what the client accepts."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type


class _Turns(Collector):
    def __init__(self, lag: Lag) -> None:
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        """The histogram as it stands."""
        counts = accumulate(self._lag.counts)
        buckets = [(str(step), float(count)) for step, count in zip((*STEPS_S, "+Inf"), counts, strict=True)]
        yield HistogramMetricFamily(
            "darkroom_fanout_seconds",
            "Time from reading a message to having written it to everybody, per turn of a room.",
            buckets,
            self._lag.total_s,
        )
        yield CounterMetricFamily("darkroom_resyncs", "Times a slow reader was sent what it lacked.", self._lag.resyncs)


class _Weights(Collector):
    def __init__(self, weigh: Callable[[], Mapping[str, int]]) -> None:
        self._weigh = weigh

    def collect(self) -> Iterator[Metric]:
        """The sizes as they are now."""
        sizes = self._weigh()
        total = sum(sizes.values())
        yield GaugeMetricFamily("darkroom_documents_bytes", "Documents of the rooms open in this process.", total)
        largest = GaugeMetricFamily("darkroom_document_bytes", "The largest documents open here.", labels=["room"])
        for room, size in heapq.nlargest(TOP_ROOMS, sizes.items(), key=lambda item: item[1]):
            largest.add_metric([room], size)
        yield largest
