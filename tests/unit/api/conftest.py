"""A system in which everything works, for tests that break one thing."""

from datetime import UTC, datetime, timedelta

import pytest

from services.api.completeness.days import Day, LedgerView
from services.api.health.clock import ClockReading
from services.api.health.snapshot import API, SERVICES, Snapshot
from shared.bus.heartbeat import Heartbeat
from shared.bus.streams import GroupLag
from shared.datasets.universe import Ranking
from shared.ledger.day import DayLedger
from shared.ledger.minutes import span_mask

NOW = datetime(2025, 4, 5, 12, 0, 30, tzinfo=UTC)


def beat(service, **changes):
    fields = {
        "service": service,
        "state": "ok",
        "reason": "works",
        "host": "box",
        "pid": 7,
        "started": NOW - timedelta(hours=5),
        "beaten": NOW,
    }
    return Heartbeat(**fields | changes)


@pytest.fixture
def make_beat():
    return beat


@pytest.fixture
def make_lag():
    def build(stream, group, *, lag=0, pending=0, age_seconds=0.0):
        now_ms = 1_000_000_000_000
        oldest = now_ms - round(age_seconds * 1000) if lag + pending else None
        return GroupLag(stream, group, lag + pending, lag, pending, oldest, now_ms, 1)

    return build


@pytest.fixture
def now():
    return NOW


@pytest.fixture
def healthy():
    """Return a snapshot in which everything works."""
    return Snapshot(
        clock=ClockReading(NOW, offset_seconds=0.0, rate=1.0, measured=True),
        heartbeats={service: beat(service) for service in (*SERVICES, API)},
        watermarks={
            "written_until": NOW - timedelta(seconds=30),
            "converted_until": NOW - timedelta(hours=12),
            "newest:BTC_USDT": NOW - timedelta(seconds=90),
        },
        universe=Ranking(
            exchange="okx",
            ranked_time=NOW - timedelta(hours=4),
            rank_by="raw",
            top_n=2,
            members=("BTC_USDT", "ETH_USDT"),
            added=(),
            removed=(),
        ),
        ledger=ledger(),
    )


def ledger(missing=0):
    """Return the ledger of a morning of one symbol, whose minutes from 06:00 on are missing, as many as asked for."""
    wanted = span_mask(0, 719)
    gone = span_mask(360, 359 + missing)
    candles = {"BTC_USDT": DayLedger(wanted=wanted, received=wanted & ~gone)}
    funding = {"BTC_USDT": DayLedger(wanted=1, received=1)}
    day = Day(NOW.date(), {"kline_1m": candles, "funding": funding})
    return LedgerView({NOW.date(): day}, NOW - timedelta(seconds=90))


@pytest.fixture
def make_ledger():
    return ledger
