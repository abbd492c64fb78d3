"""Numbers of a running server, as Prometheus reads them from `/metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts of one server, by names that begin with `worldmodel_`; those of its process, with `process_`."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time, open files
        self.connections = Gauge("worldmodel_connections", "Open connections.", registry=registry)
        self.opened = Counter(
            "worldmodel_connections_opened", "Connections opened so far.", registry=registry
        )
        self.refused = Counter(
            "worldmodel_refused", "Handshakes and requests refused, by reason.", ["reason"], registry=registry
        )
        self.request_seconds = Histogram(
            "worldmodel_request_seconds", "From a request to its answer.", buckets=_SECONDS, registry=registry
        )
        self.decision_seconds = Histogram(
            "worldmodel_decision_seconds", "Of one decision for a batch.", buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "worldmodel_batch_size", "Robots that shared a decision.", buckets=_SIZES, registry=registry
        )

    def decided(self, size: int, seconds: float) -> None:
        """Count a decision for so many."""
        self.batch_size.observe(size)
        self.decision_seconds.observe(seconds)

    def text(self) -> str:
        """All of them, in the text format."""
        return generate_latest(self._registry).decode()
