"""A provider folder of a small perpetual market, written with numpy alone: what the research kit is tried on.

Hours are drawn, days are aggregated from them, so both frequencies agree. Whoever pays much funding
tends to fall and whoever rose yesterday tends to give some of it back, so that there is something to learn.
One symbol is listed late, one is delisted early, one has a hole. Layout and meanings: see the README's fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ORIGIN = datetime(2025, 4, 5)  # noqa: DTZ001 - Qlib's labels are UTC without a zone
HOURS_PER_DAY = 24
FUTURE_BARS = 30
INTERVAL = 8
LISTED_LATE, DELISTED, WITH_HOLE = "NEW_USDT", "GONE_USDT", "HOLE_USDT"

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Market:
    """What is drawn; the same folder for the same values."""

    symbols: int = 20
    days: int = 200
    seed: int = 1

    @property
    def hours(self) -> int:
        """Return how many hours there are."""
        return self.days * HOURS_PER_DAY

    @property
    def names(self) -> list[str]:
        """Return the symbols: Bitcoin first, then the three odd ones, then plain ones."""
        plain = [f"C{number:02}_USDT" for number in range(self.symbols - 4)]
        return ["BTC_USDT", LISTED_LATE, DELISTED, WITH_HOLE, *plain]


def write_folder(folder: Path, market: Market) -> Path:
    """Write calendars, instruments and bins of `day` and `60min`; return the folder."""
    _write_calendars(folder, market)
    hourly = _draw(market)
    _write_instruments(folder, market, hourly)
    for name, fields in hourly.items():
        first, end = _life(name, market)
        for freq, values, step in (("60min", fields, 1), ("day", _days(fields), HOURS_PER_DAY)):
            _write_bins(folder / "features" / name.lower(), freq, values, first // step, end // step)
    return folder


def _life(name: str, market: Market) -> tuple[int, int]:
    """Return the hours [first, end) in which a symbol trades: whole days."""
    if name == LISTED_LATE:
        return market.days // 4 * HOURS_PER_DAY, market.hours
    if name == DELISTED:
        return 0, market.days * 9 // 10 * HOURS_PER_DAY
    return 0, market.hours


def _draw(market: Market) -> dict[str, dict[str, Numbers]]:
    random = np.random.default_rng(market.seed)
    hours, count = market.hours, market.symbols
    settles = np.arange(hours) % INTERVAL == 0
    # A settled rate wanders around 0.01 %; every symbol has a mean of its own.
    means = 1e-4 + 3e-4 * random.standard_normal(count)
    rates = np.empty((hours, count))
    rate = means.copy()
    for hour in range(hours):
        if settles[hour]:
            rate = means + 0.9 * (rate - means) + 1e-4 * random.standard_normal(count)
        rates[hour] = rate
    shocks = 0.004 * random.standard_normal((hours, 1)) + 0.007 * random.standard_normal((hours, count))
    returns = np.zeros((hours, count))
    for hour in range(hours):
        past = returns[max(0, hour - HOURS_PER_DAY) : hour].sum(axis=0)
        returns[hour] = shocks[hour] - 1.0 * (rates[max(0, hour - 1)] - 1e-4) - 0.01 * past
    closes = np.exp(np.log(np.geomspace(60_000, 0.01, count)) + returns.cumsum(axis=0))
    predicted = rates + 2e-5 * random.standard_normal((hours, count))
    ranks = np.full((hours, count), np.nan)
    ranked = np.where(settles)[0]
    order = np.abs(predicted[np.maximum(ranked - 1, 0)]).argsort(axis=1)[:, ::-1]
    for at, row in zip(ranked, order, strict=True):
        ranks[at : at + INTERVAL, row] = np.arange(1, count + 1)
    return {
        name: _fields(
            market,
            name,
            random,
            {"close": closes[:, i], "rate": rates[:, i], "predicted": predicted[:, i], "rank": ranks[:, i]},
        )
        for i, name in enumerate(market.names)
    }


def _fields(market: Market, name: str, random: np.random.Generator, drawn: Mapping[str, Numbers]) -> dict[str, Numbers]:
    hours = market.hours
    close = drawn["close"]
    open_ = np.concatenate([close[:1], close[:-1]])
    volume = np.exp(random.normal(5, 0.5, hours))
    fields = {
        "open": open_,
        "high": np.maximum(open_, close) * (1 + np.abs(random.normal(0, 0.002, hours))),
        "low": np.minimum(open_, close) * (1 - np.abs(random.normal(0, 0.002, hours))),
        "close": close,
        "volume": volume,
        "vwap": (open_ + close) / 2,
        "amount": volume * (open_ + close) / 2,
        "contracts": volume * 100,
        "coverage": np.ones(hours),
        "funding_rate": drawn["rate"],
        "funding_paid": np.where(np.arange(hours) % INTERVAL == 0, drawn["rate"], 0.0),
        "funding_predicted": drawn["predicted"],
        "funding_interval": np.full(hours, float(INTERVAL)),
        "minutes_to_funding": (INTERVAL - 1 - np.arange(hours) % INTERVAL) * 60.0,
        "funding_rank": drawn["rank"],
        "in_universe": (drawn["rank"] <= market.symbols // 2).astype(float),
    }
    if name == WITH_HOLE:
        hole = slice(market.hours // 2, market.hours // 2 + 30)
        for field in ("open", "high", "low", "close", "volume", "vwap", "amount", "contracts"):
            fields[field][hole] = np.nan
        fields["coverage"][hole] = 0.5
    return fields


def _days(hourly: Mapping[str, Numbers]) -> dict[str, Numbers]:
    rows = {name: values.reshape(-1, HOURS_PER_DAY) for name, values in hourly.items()}
    # A day that lacks an hour has no prices, and `sum`, `max` and the like keep its NaN.
    days = {name: values[:, -1].copy() for name, values in rows.items()}
    for name in ("volume", "amount", "contracts", "funding_paid"):
        days[name] = rows[name].sum(axis=1)
    days["open"] = rows["open"][:, 0].copy()
    days["high"] = rows["high"].max(axis=1)
    days["low"] = rows["low"].min(axis=1)
    days["coverage"] = rows["coverage"].mean(axis=1)
    days["vwap"] = days["amount"] / days["volume"]
    for name in ("funding_rank", "in_universe"):
        days[name] = rows[name][:, 0].copy()
    partial = np.isnan(rows["close"]).any(axis=1)
    days["open"][partial] = days["close"][partial] = np.nan
    return days


def _write_bins(folder: Path, freq: str, fields: Mapping[str, Numbers], first: int, end: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in fields.items():
        content = np.concatenate([[first], values[first:end]]).astype("<f4")
        content.tofile(folder / f"{name}.{freq}.bin")


def _write_calendars(folder: Path, market: Market) -> None:
    (folder / "calendars").mkdir(parents=True, exist_ok=True)
    for freq, step, bars, form in (
        ("60min", timedelta(hours=1), market.hours, "%Y-%m-%d %H:%M:%S"),
        ("day", timedelta(days=1), market.days, "%Y-%m-%d"),
    ):
        labels = [f"{ORIGIN + number * step:{form}}\n" for number in range(bars + FUTURE_BARS)]
        (folder / "calendars" / f"{freq}.txt").write_text("".join(labels[:bars]))
        (folder / "calendars" / f"{freq}_future.txt").write_text("".join(labels))


def _write_instruments(folder: Path, market: Market, hourly: Mapping[str, Mapping[str, Numbers]]) -> None:
    (folder / "instruments").mkdir(parents=True, exist_ok=True)
    everything, members = [], []
    for name, fields in hourly.items():
        first, end = _life(name, market)
        everything.append(_span(name, first, end))
        inside = np.zeros(market.hours + 2, bool)
        inside[first + 1 : end + 1] = fields["in_universe"][first:end] == 1
        begins, ends = (np.where(np.diff(inside.astype(int)) == sign)[0] for sign in (1, -1))
        members.extend(_span(name, int(begin), int(stop)) for begin, stop in zip(begins, ends, strict=True))
    (folder / "instruments" / "all.txt").write_text("".join(everything))
    (folder / "instruments" / "top50.txt").write_text("".join(members))


def _span(name: str, first: int, end: int) -> str:
    begin, last = ORIGIN + timedelta(hours=first), ORIGIN + timedelta(hours=end) - timedelta(seconds=1)
    return f"{name}\t{begin:%Y-%m-%d %H:%M:%S}\t{last:%Y-%m-%d %H:%M:%S}\n"
