"""The metrics of the api for Prometheus: its own process, and gauges computed from a snapshot at each scrape. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.api.completeness.days import LedgerView
from services.api.disk import Disk
from services.api.health.diagnosis import ServiceState
from services.api.health.lag import missing_minutes, symbol_ages
from services.api.health.snapshot import API, SERVICES, Snapshot
from services.api.health.status import Status
from shared.ledger.day import MinuteVerdict

_PREFIX = "qlib_crypto_"

ALERTS_OPEN = Gauge("qlib_crypto_alerts_open", "Alerts that were notified and still hold", ["severity"])
ALERTS_SENT = Counter("qlib_crypto_alerts_sent_total", "Tries to send a message", ["target", "outcome"])
ALERTS_WAITING = Gauge("qlib_crypto_alerts_waiting", "Messages that did not reach their target yet")


class _Families(Collector):
    """Families that were computed before: a scrape must not wait inside `collect`."""

    def __init__(self, families: Iterable[GaugeMetricFamily]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        return iter(self._families)


def exposition(snapshot: Snapshot, status: Status, disk: Disk | None) -> bytes:
    """Return the text that Prometheus reads. What is not known is left out, never shown as 0."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families(snapshot, status, disk)))
    return generate_latest(REGISTRY) + generate_latest(registry)


def families(snapshot: Snapshot, status: Status, disk: Disk | None) -> Iterator[GaugeMetricFamily]:
    """Yield the gauges of a snapshot."""
    answers = snapshot.redis_problem is None
    yield _gauge("redis_up", "1 while Redis answers", {(): float(answers)})
    yield _gauge(
        "service_ok",
        "1 while the verdict on a service is ok",
        {(row.service,): float(row.verdict is ServiceState.OK) for row in status.services},
        ["service"],
    )
    if answers:
        yield from _bus_families(snapshot)
    if disk is not None:
        yield from _disk_families(disk)


def _bus_families(snapshot: Snapshot) -> Iterator[GaugeMetricFamily]:
    beating = {(service,): float(service in snapshot.heartbeats) for service in (*SERVICES, API)}
    yield _gauge("service_up", "1 while a service beats", beating, ["service"])
    yield from _lag_families(snapshot)
    ages = {(age.symbol,): age.age_seconds for age in symbol_ages(snapshot) if age.age_seconds is not None}
    yield _gauge(
        "candle_age_seconds",
        "Seconds of the exchange's clock since the end of a member's last candle",
        ages,
        ["symbol"],
    )
    behind = {(name,): snapshot.age_seconds(mark) for name, mark in snapshot.stage_marks.items()}
    yield _gauge("watermark_age_seconds", "How far a watermark is behind the exchange's clock", behind, ["watermark"])
    if snapshot.universe is not None:
        age = {(): snapshot.age_seconds(snapshot.universe.ranked_time)}
        yield _gauge("universe_age_seconds", "Seconds of the exchange's clock since the last ranking", age)
        yield _gauge("universe_members", "Symbols in the universe", {(): len(snapshot.universe.members)})
    if (missing := missing_minutes(snapshot)) is not None:
        yield _gauge("missing_minutes", "Minutes that should be there and are not yet", {(): missing})
    if snapshot.ledger is not None:
        yield from _ledger_families(snapshot.ledger, snapshot.clock.exchange_time)
    yield from _dead_letter_families(snapshot)
    if (memory := snapshot.memory) is not None:
        yield _gauge("redis_used_bytes", "Memory that Redis uses", {(): memory.used})
        yield _gauge("redis_limit_bytes", "Ceiling of Redis' memory; 0: none", {(): memory.limit})


def _ledger_families(ledger: LedgerView, now: datetime) -> Iterator[GaugeMetricFamily]:
    account, open_now = ledger.counted.minutes, ledger.open_gaps
    minutes = {(str(verdict),): getattr(account, verdict) for verdict in MinuteVerdict}
    yield _gauge("ledger_minutes", "Wanted minutes of the retention, by verdict", minutes, ["verdict"])
    if account.complete is not None:
        share = {(): account.complete}
        yield _gauge("ledger_complete_ratio", "Share of the wanted minutes the exchange has that are stored", share)
    settled = ledger.counted.settlements
    settlements = {("settled",): settled.wanted - settled.missing, ("missing",): settled.missing}
    yield _gauge(
        "ledger_settlements", "Settlements of funding rates, by whether the rate is stored", settlements, ["state"]
    )
    yield _gauge("ledger_open_gaps", "Runs of missing minutes", {(): open_now.gaps})
    age = 0.0 if open_now.since is None else (now - open_now.since).total_seconds()
    yield _gauge(
        "ledger_oldest_gap_seconds",
        "Seconds of the exchange's clock since the oldest missing minute opened; 0: none",
        {(): age},
    )


def _dead_letter_families(snapshot: Snapshot) -> Iterator[GaugeMetricFamily]:
    recent = {(origin,): count for origin, count in snapshot.recent_dead_letters.items()}
    yield _gauge("dead_letter_entries", "Inputs that were set aside and are kept", {(): snapshot.dead_letters})
    yield _gauge("dead_letter_recent", "Inputs set aside within the last ten minutes", recent, ["origin"])


def _lag_families(snapshot: Snapshot) -> Iterator[GaugeMetricFamily]:
    lags = {(lag.stream, lag.group): lag for lag in snapshot.lags}
    lengths = {(stream,): lag.length for (stream, _), lag in lags.items()}
    yield _gauge("stream_length", "Entries in a stream", lengths, ["stream"])
    per_group = ["stream", "group"]
    yield _gauge("group_lag", "Entries not yet delivered", {key: lag.lag for key, lag in lags.items()}, per_group)
    yield _gauge(
        "group_pending",
        "Entries delivered and not acknowledged",
        {key: lag.pending for key, lag in lags.items()},
        per_group,
    )
    yield _gauge(
        "group_oldest_age_seconds",
        "Age of the oldest entry that is lagging or pending; 0: none is",
        {key: lag.oldest_age_seconds for key, lag in lags.items()},
        per_group,
    )


def _disk_families(disk: Disk) -> Iterator[GaugeMetricFamily]:
    raw = {(dataset.dataset,): dataset for dataset in disk.raw}
    yield _gauge(
        "dataset_bytes", "Bytes of a raw dataset", {key: dataset.bytes for key, dataset in raw.items()}, ["dataset"]
    )
    yield _gauge(
        "dataset_files", "Files of a raw dataset", {key: dataset.files for key, dataset in raw.items()}, ["dataset"]
    )
    free = {(space.setting,): space.free_bytes for space in disk.spaces}
    total = {(space.setting,): space.total_bytes for space in disk.spaces}
    yield _gauge("disk_free_bytes", "Free space on the disk of a folder", free, ["folder"])
    yield _gauge("disk_total_bytes", "Space on the disk of a folder", total, ["folder"])
    qlib = {(frequency.frequency,): frequency for frequency in disk.qlib.frequencies}
    yield _gauge(
        "qlib_bytes", "Bytes of the bins", {key: frequency.bytes for key, frequency in qlib.items()}, ["frequency"]
    )
    yield _gauge(
        "qlib_bars", "Instants of a calendar", {key: frequency.bars for key, frequency in qlib.items()}, ["frequency"]
    )


def _gauge[Key: tuple[str, ...]](
    name: str, text: str, values: Mapping[Key, float], labels: Iterable[str] = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(_PREFIX + name, text, labels=list(labels))
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
