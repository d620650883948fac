"""How OKX spells instruments, candles and funding, and what that is in our words. Pure; the only place that knows.

Sources: OKX v5 documentation (public data, market data, WebSocket candle and funding channels) and recorded messages.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any

import msgspec

from shared.events import Candle, FundingRate, PredictedFundingRate, Source
from shared.grid import MINUTE, floor_minute, from_ms, to_ms

EXCHANGE = "okx"
_SUFFIX = "-SWAP"
CRYPTO_CATEGORIES = ("1", "")
"""instCategory 1 is crypto; 3 to 6 are stocks, commodities, forex, bonds. Older rows have none."""
FUNDING_HOURS = (1, 2, 4, 6, 8)


class SpellingError(ValueError):
    """A row that cannot be a candle or a funding rate; the text says which value and why."""


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform needs to know about a swap."""

    symbol: str
    state: str
    contract_type: str
    """`linear` or `inverse`."""
    category: str
    list_time: datetime | None
    expiry_time: datetime | None = None
    """Set once a delisting is announced: when the instrument goes."""
    tick_size: str = ""


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    """A window in which the exchange stands still, or may."""

    title: str
    state: str
    """`scheduled`, `ongoing`, `pre_open`, `completed` or `canceled`."""
    begin: datetime
    end: datetime | None
    """Expected until it is completed, then actual."""


def symbol_of(inst_id: str) -> str:
    """Return our name: instId without -SWAP, dashes to underscores (BTC-USDT-SWAP is BTC_USDT)."""
    return inst_id.removesuffix(_SUFFIX).replace("-", "_")


def inst_id_of(symbol: str) -> str:
    """Return OKX's name of a swap. A base has no underscore, so the first one is the dash (BTC_USD_UM, BTC-USD_UM)."""
    base, _, quote = symbol.partition("_")
    return f"{base}-{quote}{_SUFFIX}"


def is_swap(inst_id: str) -> bool:
    """Return whether the name is a perpetual swap's; X-Perps and dated futures end otherwise."""
    return inst_id.endswith(_SUFFIX)


def instrument_of(row: Mapping[str, Any]) -> Instrument:
    """Read a row of /public/instruments. Announced ones (preopen) have most fields empty.

    Raises `SpellingError` where a time makes no sense.
    """
    return Instrument(
        symbol=symbol_of(row["instId"]),
        state=row.get("state", ""),
        contract_type=row.get("ctType", ""),
        category=str(row.get("instCategory") or ""),
        list_time=from_ms(_milliseconds(row, "listTime")) if row.get("listTime") else None,
        expiry_time=from_ms(_milliseconds(row, "expTime")) if row.get("expTime") else None,
        tick_size=row.get("tickSz") or "",
    )


def maintenance_of(row: Mapping[str, Any]) -> Maintenance:
    """Read a row of /system/status. Raises `SpellingError` where a time makes no sense."""
    return Maintenance(
        title=row.get("title", ""),
        state=row.get("state", ""),
        begin=from_ms(_milliseconds(row, "begin")),
        end=from_ms(_milliseconds(row, "end")) if row.get("end") else None,
    )


def is_eligible(instrument: Instrument) -> bool:
    """Return whether a swap can be in the universe: live, linear or inverse, crypto."""
    return (
        instrument.state == "live"
        and instrument.contract_type in ("linear", "inverse")
        and instrument.category in CRYPTO_CATEGORIES
    )


def is_closed(row: Sequence[str]) -> bool:
    """Return whether the exchange says that the candle is over (confirm, the ninth column, is 1)."""
    return len(row) > 8 and row[8] == "1"  # noqa: PLR2004 - the ninth column


def open_time_of(row: Sequence[str]) -> datetime:
    """Return the open of a candle row, closed or forming."""
    try:
        return from_ms(int(row[0]))
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise SpellingError(f"candle row without a time: {row!r}") from error


def candle_of(
    inst_id: str, row: Sequence[str], *, source: Source, receive_time: datetime, exchange_now: datetime
) -> Candle:
    """Turn a closed row [ts, o, h, l, c, vol, volCcy, volCcyQuote, confirm] into a candle.

    On swaps vol counts contracts, volCcy the base coin, volCcyQuote the quote currency.

    Raises:
        SpellingError: the row is not closed, a value is no finite number, or the candle is impossible (high below low,
            negative volume, off the minute grid, from the future).

    """
    if not is_closed(row):
        raise SpellingError(f"the candle is not closed: {row!r}")
    open_time = open_time_of(row)
    try:
        opened, high, low, close, contracts, volume, amount = (float(value) for value in row[1:8])
    except (ValueError, TypeError) as error:
        raise SpellingError(f"no number where one is needed: {row!r}") from error
    candle = Candle(
        exchange=EXCHANGE,
        symbol=symbol_of(inst_id),
        interval="1m",
        open_time=open_time,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        amount=amount,
        contracts=contracts,
        source=source,
        receive_time=receive_time,
    )
    if reason := impossible(candle, exchange_now):
        raise SpellingError(f"{reason}: {row!r}")
    return candle


def impossible(candle: Candle, exchange_now: datetime) -> str | None:
    """Return why a candle cannot be true, or None."""
    prices = (candle.open, candle.high, candle.low, candle.close)
    if not all(0 < price < float("inf") for price in prices):
        return "a price is not a positive finite number"
    if candle.low > min(prices) or candle.high < max(prices):
        return "high or low does not enclose open and close"
    if not all(0 <= size < float("inf") for size in (candle.volume, candle.amount, candle.contracts)):
        return "a volume is negative or not finite"
    if floor_minute(candle.open_time) != candle.open_time:
        return "the open is not on the minute grid"
    if candle.open_time > exchange_now + _CLOCK_TOLERANCE:
        return "the candle is from the future"
    return None


#: The exchange's clock is known to about its round trip; a closed minute opened a minute ago, so this is generous.
_CLOCK_TOLERANCE = 2 * MINUTE


def interval_hours(begin_ms: int, end_ms: int) -> int | None:
    """Return the hours between two settlements, where that is a period OKX uses; else None."""
    hours, rest = divmod(end_ms - begin_ms, 3_600_000)
    return hours if rest == 0 and hours in FUNDING_HOURS else None


def predicted_of(row: Mapping[str, Any], *, source: Source, receive_time: datetime) -> PredictedFundingRate:
    """Read what a funding row predicts. `fundingTime` is the upcoming settlement, `nextFundingTime` the one after it.

    Raises `SpellingError` where rate or time is missing or no number.
    """
    funding_ms = _milliseconds(row, "fundingTime")
    return PredictedFundingRate(
        exchange=EXCHANGE,
        symbol=symbol_of(row["instId"]),
        known_time=from_ms(_milliseconds(row, "ts")),
        funding_time=from_ms(funding_ms),
        funding_rate=_rate(row, "fundingRate"),
        interval_hours=_interval(row, funding_ms),
        source=source,
        receive_time=receive_time,
    )


def _interval(row: Mapping[str, Any], funding_ms: int) -> int | None:
    """Length of the period that ends at fundingTime; the documented rule (next - this) is the fallback."""
    if row.get("prevFundingTime"):
        return interval_hours(_milliseconds(row, "prevFundingTime"), funding_ms)
    if row.get("nextFundingTime"):
        return interval_hours(funding_ms, _milliseconds(row, "nextFundingTime"))
    return None


def settled_of(
    row: Mapping[str, Any], *, period_hours: int | None, source: Source, receive_time: datetime
) -> FundingRate | None:
    """Read the last finished settlement out of a funding row; None where the row does not tell its time.

    `settFundingRate` belongs to `prevFundingTime`, in settState `settled` as in `processing`. `period_hours` is the
    length of the period that it ended, known from the messages before the roll.
    """
    previous, rate = row.get("prevFundingTime"), row.get("settFundingRate")
    if not previous or not rate:
        return None
    return FundingRate(
        exchange=EXCHANGE,
        symbol=symbol_of(row["instId"]),
        funding_time=from_ms(_milliseconds(row, "prevFundingTime")),
        funding_rate=_rate(row, "settFundingRate"),
        interval_hours=period_hours,
        known_time=from_ms(_milliseconds(row, "ts")),
        source=source,
        receive_time=receive_time,
    )


def settlements_of(
    rows: Sequence[Mapping[str, Any]], *, known_time: datetime, receive_time: datetime
) -> list[FundingRate]:
    """Read rows of the funding history of one instrument, newest first, as OKX sends them.

    `realizedRate` is what was charged. The period of a row is its distance to the settlement before it, which is the
    next row; for the oldest row it is unknown.
    """
    found = []
    for row, older in zip_longest(rows, rows[1:]):
        time_ms = _milliseconds(row, "fundingTime")
        hours = interval_hours(_milliseconds(older, "fundingTime"), time_ms) if older else None
        name = "realizedRate" if row.get("realizedRate") else "fundingRate"
        found.append(
            FundingRate(
                exchange=EXCHANGE,
                symbol=symbol_of(row["instId"]),
                funding_time=from_ms(time_ms),
                funding_rate=_rate(row, name),
                interval_hours=hours,
                known_time=known_time,
                source="rest",
                receive_time=receive_time,
            )
        )
    return found


def _milliseconds(row: Mapping[str, Any], name: str) -> int:
    try:
        return int(row[name])
    except (KeyError, TypeError, ValueError) as error:
        raise SpellingError(f"{name}: no time in {dict(row)!r}") from error


def _rate(row: Mapping[str, Any], name: str) -> float:
    try:
        rate = float(row[name])
    except (KeyError, TypeError, ValueError) as error:
        raise SpellingError(f"{name}: no rate in {dict(row)!r}") from error
    if not abs(rate) < 1:
        raise SpellingError(f"{name}: {rate} cannot be a funding rate")
    return rate


def candle_window(begin: datetime, end: datetime) -> dict[str, str]:
    """Return the query of the rows that open in [begin, end): both cursors are exclusive, `after` is the upper one."""
    return {"after": str(to_ms(end)), "before": str(to_ms(begin) - 1)}
