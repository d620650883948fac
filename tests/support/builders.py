"""Rows and events with sensible defaults, so that a test shows only what matters to it. Works in both environments."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from shared.bus.streams import Entry
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.ledger import CANDLES, Verdict
from shared.datasets.registry import BY_DATASET, AnyEvent, encode
from shared.datasets.row import Row
from shared.datasets.universe import Rank, Ranking
from shared.exchanges.base import Instrument
from shared.exchanges.okx.instruments import HALTED_STATES, is_eligible
from shared.exchanges.okx.names import inst_id_of
from shared.grid import MINUTE, day_start, to_ms
from shared.ledger.day import DayLedger
from shared.ledger.replica import LedgerCopy
from shared.storage.layout import partition_of
from shared.symbol import parse_symbol
from tests.support.patience import Deadline, patience

DAY_0 = date(2025, 4, 5)
MIDNIGHT = day_start(DAY_0)


def at(text: str) -> datetime:
    """Read an instant: "2025-04-05 12:00", UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def minute(number: int) -> datetime:
    """Return the open of a minute, counted from the midnight of DAY_0; any integer."""
    return MIDNIGHT + number * MINUTE


def a_candle(symbol: str = "BTC_USDT", open_time: datetime = MIDNIGHT, price: float = 100.0, **changes: Any) -> Candle:
    """Return a candle that is consistent in itself: volume 2, amount 2 x price."""
    fields: dict[str, Any] = {
        "exchange": "okx",
        "symbol": symbol,
        "interval": "1m",
        "open_time": open_time,
        "open": price,
        "high": price * 1.25,
        "low": price * 0.75,
        "close": price * 1.125,
        "volume": 2.0,
        "amount": 2.0 * price,
        "contracts": 200.0,
        "source": "ws",
        "receive_time": open_time + timedelta(seconds=61),
    }
    return Candle(**fields | changes)


def a_funding_rate(
    symbol: str = "BTC_USDT", funding_time: datetime = MIDNIGHT, rate: float = 1e-4, **changes: Any
) -> FundingRate:
    """Return a settled rate."""
    fields: dict[str, Any] = {
        "exchange": "okx",
        "symbol": symbol,
        "funding_time": funding_time,
        "funding_rate": rate,
        "interval_hours": 8,
        "known_time": funding_time + timedelta(seconds=5),
        "source": "ws",
        "receive_time": funding_time + timedelta(seconds=6),
    }
    return FundingRate(**fields | changes)


def a_prediction(
    symbol: str = "BTC_USDT", rate: float = 1e-4, known_time: datetime = MIDNIGHT, **changes: Any
) -> PredictedFundingRate:
    """Return a predicted rate."""
    fields: dict[str, Any] = {
        "exchange": "okx",
        "symbol": symbol,
        "known_time": known_time,
        "funding_time": MIDNIGHT + timedelta(hours=8),
        "funding_rate": rate,
        "interval_hours": 8,
        "source": "rest",
        "receive_time": known_time,
    }
    return PredictedFundingRate(**fields | changes)


def a_definition(
    symbol: str = "BTC_USDT", known_time: datetime = MIDNIGHT, state: str = "live", **changes: Any
) -> InstrumentDefinition:
    """Return what the exchange said of an instrument."""
    fields: dict[str, Any] = {
        "exchange": "okx",
        "symbol": symbol,
        "known_time": known_time,
        "state": state,
        "list_time": MIDNIGHT - timedelta(days=30),
        "contract_type": "linear",
        "settle_currency": "USDT",
        "contract_value": 0.01,
        "receive_time": known_time,
    }
    return InstrumentDefinition(**fields | changes)


def a_ledger_copy(days: Mapping[date, Mapping[str, DayLedger]], about: str = CANDLES) -> LedgerCopy:
    """Return a copy of the ledger that says something of a dataset's days."""
    copy = LedgerCopy()
    for day, symbols in days.items():
        copy[about].replace(day, symbols)
    return copy


def a_ranking(
    *members: str,
    ranked_time: datetime = MIDNIGHT,
    added: Iterable[str] = (),
    removed: Iterable[str] = (),
    others: Iterable[str] = (),
    exchange: str = "okx",
) -> Ranking:
    """Return a whole ranking: members first, `others` behind them."""
    symbols = [parse_symbol(symbol) for symbol in (*members, *others)]
    ranks = tuple(
        Rank(
            exchange=exchange,
            symbol=symbol,
            ranked_time=ranked_time,
            rank=place,
            funding_rate=1 / (place + 1),
            score=1 / (place + 1),
            interval_hours=8,
            funding_time=ranked_time + timedelta(hours=8),
            member=place <= len(members),
            rank_by="raw",
            known_time=ranked_time,
        )
        for place, symbol in enumerate(symbols, start=1)
    )
    return Ranking(
        exchange=exchange,
        ranked_time=ranked_time,
        rank_by="raw",
        top_n=max(1, len(members)),
        members=tuple(map(parse_symbol, members)),
        added=tuple(map(parse_symbol, added)),
        removed=tuple(map(parse_symbol, removed)),
        ranks=ranks,
    )


def a_verdict(verdict: Any, begin: int, end: int, *symbols: str) -> Verdict:
    """Return a verdict on minutes [begin, end), counted from the midnight of DAY_0."""
    return Verdict(
        exchange="okx",
        verdict=verdict,
        symbols=tuple(map(parse_symbol, symbols or ("BTC_USDT",))),
        begin=minute(begin),
        end=minute(end),
        known_time=minute(end),
    )


def an_instrument(symbol: str = "BTC_USDT", **changes: Any) -> Instrument:
    """Return a live linear crypto swap."""
    fields: dict[str, Any] = {
        "symbol": symbol,
        "state": "live",
        "contract_type": "linear",
        "category": "1",
        "list_time": None,
    }
    fields |= changes
    eligible = is_eligible(fields["state"], fields["contract_type"], fields["category"])
    return Instrument(**{"eligible": eligible, "halted": fields["state"] in HALTED_STATES} | fields)


def a_candle_row(open_time: datetime = MIDNIGHT, *, confirm: str = "1", price: float = 100.0) -> list[str]:
    """Return a candle as OKX spells it."""
    prices = (price, price * 1.25, price * 0.75, price * 1.125)
    return [str(to_ms(open_time)), *map(str, prices), "200", "2", str(2 * price), confirm]


def a_funding_row(
    symbol: str = "BTC_USDT", *, at: datetime, funding_time: datetime, hours: int = 8, **changes: str
) -> dict[str, str]:
    """Return a funding row as OKX spells it: published `at`, for the settlement at `funding_time`."""
    step = timedelta(hours=hours)
    row = {
        "instId": inst_id_of(symbol),
        "instType": "SWAP",
        "fundingRate": "0.0001",
        "fundingTime": str(to_ms(funding_time)),
        "nextFundingRate": "",
        "nextFundingTime": str(to_ms(funding_time + step)),
        "prevFundingTime": str(to_ms(funding_time - step)),
        "settFundingRate": "0.0002",
        "settState": "settled",
        "ts": str(to_ms(at)),
    }
    return row | changes


def an_entry(event: AnyEvent, number: int = 1) -> Entry:
    """Return an event as it is delivered."""
    return Entry(event.stream, f"{number}-0", encode(event))


def store(root: Path, rows: Iterable[Row]) -> None:
    """Merge rows into their day files under `root`."""
    from shared.storage.parquet import merge, read_rows, table_of, write_table

    files: dict[Any, list[Row]] = {}
    for row in rows:
        files.setdefault(partition_of(row), []).append(row)
    for partition, fresh in files.items():
        kind, path = BY_DATASET[partition.dataset], partition.path(root)
        write_table(path, merge(kind, read_rows(kind, path) if path.exists() else None, table_of(kind, fresh)))


def write_batch(root: Path, rows: Iterable[Row], verdicts: Iterable[Verdict] = ()) -> Any:
    """Append rows and verdicts as the writer does, and merge them; return what the ledger says then of what changed."""
    from services.writer.disk.store import RawStore

    raw, by_kind = RawStore(root), dict[type[Row], list[Row]]()
    for row in rows:
        by_kind.setdefault(type(row), []).append(row)
    appended = raw.append(by_kind, list(verdicts))
    chosen = raw.begin_compaction()
    raw.merge(chosen)
    merged = raw.end_compaction(chosen)
    return {day: {key: merged[day][key] for key in records} for day, records in appended.items()}


def wait_for(condition: Callable[[], Any], seconds: float = 20.0, *, every: float = 0.02) -> Any:
    """Wait until a condition holds and return its value; fail when it does not within so many seconds."""
    deadline = Deadline(seconds)
    while not (value := condition()):
        assert not deadline.has_passed, f"did not happen within {seconds} s"
        time.sleep(every)
    return value


def wait_until_none[T](find: Callable[[], T], what: str, seconds: float = 20.0, *, every: float = 0.5) -> None:
    """Wait until nothing is found any more; fail with `what` and what is still found when that takes too long."""
    deadline = Deadline(seconds)
    while found := find():
        assert not deadline.has_passed, f"{what} after {seconds} s: {found}"
        time.sleep(every)


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until a condition holds while other tasks run; fail when it does not within so many seconds."""
    async with asyncio.timeout(patience(seconds)):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process, or in Redis
            await asyncio.sleep(0.02)
