"""`python -m proofs.rig.synthetic_year FOLDER`: a raw folder of a made-up market, with all that can go wrong.

Listings and delistings inside the time, symbols that leave and return, minutes that are missing, absent or halted,
funding every 8, 4, 2 or 1 hours and changes of it, predictions with silences, rankings that are missed. A hundred
symbols and a year are some forty million candles in some thirty thousand files.
"""

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from proofs.rig.raw_folder import EXCHANGE, ledger_rows, ms_of, write_candles, write_ledger, write_rows
from proofs.units import DAY_MS, HOUR_MS, MINUTE_MS, MINUTES_PER_DAY
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.universe import Rank
from shared.runtime.command import run

Times = NDArray[np.int64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]

RANK_EVERY_MS = 8 * HOUR_MS
_RANKED_FROM, _PREDICTED_FROM, _LIVE_FROM = 0.2, 0.5, 0.5
"""From which share of the time on there are rankings, predictions, and candles over WebSocket."""
_HISTORY_INTERVALS_UNTIL = 0.3
"""Up to which share of the time some symbols' funding intervals are unknown, as in fetched history."""


@dataclass(frozen=True)
class Market:
    """What is to be made; the same market for the same values."""

    symbols: int
    days: int
    seed: int
    first: date = date(2025, 1, 1)
    members: int = 20
    gaps: bool = True

    @property
    def begin(self) -> int:
        """Return the first midnight, Unix ms."""
        return ms_of(self.first)

    @property
    def minutes(self) -> int:
        """Return how many minutes there are."""
        return self.days * MINUTES_PER_DAY

    def at(self, share: float) -> int:
        """Return the midnight at a share of the time, Unix ms."""
        return self.begin + int(share * self.days) * DAY_MS

    def random(self, *stream: int) -> np.random.Generator:
        """Return a source of randomness that depends on the seed and on what it is for."""
        return np.random.default_rng([self.seed, *stream])


@dataclass(frozen=True)
class Funding:
    """One symbol's settlements: all that were due, and whether they are stored."""

    times: Times
    hours: NDArray[np.int32]
    rates: Numbers
    stored: Flags


@dataclass(frozen=True)
class Made:
    """What is known about one symbol once its candles are written."""

    symbol: str
    candles: int
    files: int
    alive: Flags
    funding: Funding
    predictions: dict[str, Any]
    ledger: list[dict[str, Any]]


def symbol_of(number: int) -> str:
    """Return the name of a symbol."""
    return f"S{number:03d}_USDT"


# --- Which minutes there are


def alive_minutes(market: Market, number: int) -> Flags:
    """Return in which minutes a symbol is listed: listed late, delisted early, away for days, or always. Pure."""
    random, alive = market.random(1, number), np.ones(market.minutes, bool)
    kind = number % 10
    first, last = np.sort(random.integers(0, market.minutes, 2))
    if kind in {1, 2, 3}:
        alive[: max(1, int(first) // 2)] = False
    if kind in {3, 4}:
        alive[(market.minutes + int(last)) // 2 :] = False
    if kind == 5:  # noqa: PLR2004 - the sixth of ten
        away = market.minutes // 3 + int(first) // 10
        alive[away : away + max(2 * MINUTES_PER_DAY, market.minutes // 15)] = False
    return alive


def halted_minutes(market: Market) -> Flags:
    """Return in which minutes the whole exchange stood still. Pure."""
    random, halted = market.random(2), np.zeros(market.minutes, bool)
    if market.gaps:
        _mark(halted, random, max(1, market.days // 20), (5, 260))
    return halted


def gaps_of(market: Market, number: int) -> tuple[Flags, Flags, Flags]:
    """Return the minutes that one symbol lacks: without a reason, confirmed absent, and confirmed though there. Pure.

    The last ones got their candle after the exchange had said that it has none.
    """
    random = market.random(3, number)
    missing, absent, late = (np.zeros(market.minutes, bool) for _ in range(3))
    if market.gaps:
        for flags, every, lengths in (
            (missing, 7, (1, 60)),
            (missing, 60, (1000, 3500)),
            (absent, 3, (1, 20)),
            (absent, 20, (60, 400)),
            (absent, 90, (1400, 4500)),
            (late, 10, (1, 5)),
        ):
            _mark(flags, random, random.poisson(market.days / every), lengths)
    return missing & ~absent, absent & ~late, late


def _mark(flags: Flags, random: np.random.Generator, runs: int, lengths: tuple[int, int]) -> None:
    """Mark some runs; every third of them begins and ends on a multiple of five minutes."""
    for run_number in range(runs):
        begin, length = int(random.integers(0, len(flags))), int(random.integers(*lengths))
        if run_number % 3 == 0:
            begin, length = begin // 5 * 5, -(-length // 5) * 5
        flags[begin : begin + length] = True


# --- Candles


def candle_columns(market: Market, number: int) -> dict[str, Numbers]:
    """Return the candles of every minute: a random walk on a grid of ticks; some minutes without a trade. Pure."""
    random, minutes = market.random(4, number), market.minutes
    start = float(10 ** random.uniform(-3, 5))
    tick = 10.0 ** (np.floor(np.log10(start)) - 4)
    walk = np.cumsum(random.normal(0, 6e-4, minutes))
    ticks = np.maximum(1.0, np.round(start * np.exp(walk - walk.mean()) / tick))
    quiet = random.random(minutes) < 0.02  # noqa: PLR2004 - one minute in fifty
    ticks = _held(ticks, quiet)
    opens = np.concatenate([ticks[:1], ticks[:-1]]) + np.where(quiet, 0, random.integers(-1, 2, minutes))
    opens = np.where(quiet, ticks, np.maximum(1.0, opens))
    reach = np.where(quiet, 0, random.geometric(0.3, (2, minutes)) - 1)
    high, low = np.maximum(opens, ticks) + reach[0], np.maximum(1.0, np.minimum(opens, ticks) - reach[1])
    contracts = np.where(quiet, 0.0, np.ceil(random.lognormal(4, 1.5, minutes)))
    size = float(10.0 ** random.integers(-4, 4))
    decimals = max(0, -int(np.log10(tick)))
    prices = {
        name: np.round(values * tick, decimals)
        for name, values in (("open", opens), ("high", high), ("low", low), ("close", ticks))
    }
    volume = contracts * size
    amount = volume * (prices["high"] + prices["low"] + prices["close"]) / 3
    return prices | {"volume": volume, "amount": amount, "contracts": contracts}


def _held(values: Numbers, still: Flags) -> Numbers:
    """Return values in which a minute that stands still has the value of the one before it."""
    places = np.where(still, 0, np.arange(len(values)))
    return np.asarray(values[np.maximum.accumulate(places)])


# --- Funding


def funding_of(market: Market, number: int, alive: Flags) -> Funding:
    """Return what was settled while a symbol was listed: intervals that change, holes of over a week. Pure."""
    random = market.random(5, number)
    changes = np.sort(random.integers(0, market.days * 3, random.integers(0, 4))) * RANK_EVERY_MS + market.begin
    edges = [market.begin, *changes.tolist(), market.begin + market.days * DAY_MS]
    times, hours = [], []
    for begin, end in pairwise(edges):
        interval = int(random.choice([8, 4, 2, 1], p=[0.5, 0.3, 0.1, 0.1]))
        instants = np.arange(begin, end, interval * HOUR_MS, dtype=np.int64)
        times.append(instants)
        hours.append(np.full(len(instants), interval, np.int32))
    instants, lengths = np.concatenate(times), np.concatenate(hours)
    listed = alive[(instants - market.begin) // MINUTE_MS]
    instants, lengths = instants[listed], lengths[listed]
    noise = random.normal(0, 1e-4, len(instants))
    rates = np.round(np.convolve(noise, 0.8 ** np.arange(30))[: len(instants)] + 1e-4, 8)
    stored = random.random(len(instants)) > (0.01 if market.gaps else 0.0)
    if market.gaps and number % 7 == 0:
        hole = market.at(0.4)
        stored &= (instants < hole) | (instants > hole + 9 * DAY_MS)
    return Funding(instants, lengths, rates, stored)


def settled_columns(market: Market, number: int, funding: Funding) -> dict[str, Any]:
    """Return the stored settlements of one symbol as columns. A few are stamped some ms late, as exchanges do. Pure."""
    random, stored = market.random(6, number), funding.stored
    times = funding.times[stored]
    jitter = np.where(random.random(len(times)) < 0.02, random.integers(1, 4, len(times)), 0)  # noqa: PLR2004
    times = times + jitter
    unknown = (times < market.at(_HISTORY_INTERVALS_UNTIL)) & (number % 3 == 0)
    hours = [None if hidden else int(value) for value, hidden in zip(funding.hours[stored], unknown, strict=True)]
    return {
        "symbol": [symbol_of(number)] * len(times),
        "funding_time": times,
        "funding_rate": funding.rates[stored],
        "interval_hours": hours,
        "known_time": times + 5_000,
        "receive_time": times + 6_000,
    }


def predicted_columns(market: Market, number: int, alive: Flags, funding: Funding) -> dict[str, Any]:
    """Return what was predicted of one symbol as columns: every 5 to 15 minutes, now and then nothing for hours. Pure.

    Three in ten are for the settlement after the next; every tenth is known on a full minute, so that it meets the
    close of a bar exactly.
    """
    random, begin = market.random(7, number), market.at(_PREDICTED_FROM)
    end = market.begin + market.days * DAY_MS
    known = begin + np.cumsum(random.integers(5 * MINUTE_MS, 15 * MINUTE_MS, (end - begin) // (5 * MINUTE_MS)))
    known = np.where(random.random(len(known)) < 0.1, known // MINUTE_MS * MINUTE_MS, known)  # noqa: PLR2004
    known = np.unique(known[known < end])
    known = known[alive[(known - market.begin) // MINUTE_MS]]
    for silence in random.integers(begin, end, random.poisson(market.days / 10)) if market.gaps else ():
        known = known[(known < silence) | (known > silence + int(random.integers(2, 20)) * HOUR_MS)]
    ahead = np.where(random.random(len(known)) < 0.3, 1, 0)  # noqa: PLR2004
    places = np.searchsorted(funding.times, known, side="right") + ahead
    known, places = known[places < len(funding.times)], places[places < len(funding.times)]
    unknown = random.random(len(known)) < 0.03  # noqa: PLR2004
    hours = [None if hidden else int(value) for value, hidden in zip(funding.hours[places], unknown, strict=True)]
    return {
        "symbol": [symbol_of(number)] * len(known),
        "known_time": known,
        "funding_time": funding.times[places],
        "funding_rate": np.round(funding.rates[places] + random.normal(0, 2e-5, len(known)), 8),
        "interval_hours": hours,
        "receive_time": known + 200,
    }


# --- One symbol, and all of them


def make_symbol(market: Market, root: Path, number: int) -> Made:
    """Write the candles of one symbol; return what the files of all symbols need of it."""
    alive, halted = alive_minutes(market, number), halted_minutes(market)
    missing, absent, late = gaps_of(market, number)
    there = alive & ~halted & ~missing & ~absent
    live = np.arange(market.minutes) >= (market.at(_LIVE_FROM) - market.begin) // MINUTE_MS
    live &= market.random(8, number).random(market.minutes) > 0.001  # noqa: PLR2004 - one in a thousand is healed
    opens = market.begin + np.flatnonzero(there).astype(np.int64) * MINUTE_MS
    columns: dict[str, Any] = {name: values[there] for name, values in candle_columns(market, number).items()}
    columns |= {"source": np.where(live[there], "ws", "rest"), "receive_time": opens + 61_000}
    files = write_candles(root, symbol_of(number), opens, columns)
    funding = funding_of(market, number, alive)
    sets = {
        "wanted": alive,
        "received": there & live,
        "healed": there & ~live,
        "absent": alive & (absent | (late & there)),
        "halted": alive & halted,
    }
    settled = {
        "wanted": _minutes(market, funding.times),
        "healed": _minutes(market, funding.times[funding.stored]),
    }
    symbol = symbol_of(number)
    ledger = [
        *ledger_rows(symbol, market.first, sets),
        *ledger_rows(symbol, market.first, settled, about=FundingRate.dataset),
    ]
    return Made(
        symbol,
        len(opens),
        files,
        alive,
        funding,
        predicted_columns(market, number, alive, funding),
        ledger,
    )


def _minutes(market: Market, times: Times) -> Flags:
    found = np.zeros(market.minutes, bool)
    found[(times - market.begin) // MINUTE_MS] = True
    return found


def make(market: Market, root: Path, *, workers: int = 1) -> Iterator[Made]:
    """Write the whole raw folder; yield every symbol once its candles are written."""
    made = []
    for symbol in _made_symbols(market, root, workers):
        made.append(symbol)
        yield symbol
    settled = [settled_columns(market, number, one.funding) for number, one in enumerate(made)]
    _write_all(root, FundingRate, settled, {"exchange": EXCHANGE, "source": "rest"})
    _write_all(root, PredictedFundingRate, [one.predictions for one in made], {"exchange": EXCHANGE, "source": "ws"})
    write_ledger(root, [row for one in made for row in one.ledger])
    columns = ranking_columns(market, made)
    write_rows(root, Rank, len(columns["symbol"]), columns)


def _made_symbols(market: Market, root: Path, workers: int) -> Iterator[Made]:
    numbers = range(market.symbols)
    if workers == 1:
        yield from (make_symbol(market, root, number) for number in numbers)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(make_symbol, [market] * len(numbers), [root] * len(numbers), numbers)


def _write_all(root: Path, kind: Any, parts: list[dict[str, Any]], fixed: Mapping[str, Any]) -> None:
    columns = {name: [value for part in parts for value in part[name]] for name in parts[0]}
    write_rows(root, kind, len(columns["symbol"]), columns | dict(fixed))


def ranking_columns(market: Market, made: list[Made]) -> dict[str, Any]:
    """Return the rankings of all symbols by the rate that settled last; one in thirty was missed. Pure.

    Half of them are stamped on the full minute, and half some seconds later.
    """
    random = market.random(9)
    instants = np.arange(market.at(_RANKED_FROM), market.begin + market.days * DAY_MS, RANK_EVERY_MS, dtype=np.int64)
    instants = instants[random.random(len(instants)) > (0.03 if market.gaps else 0.0)]
    rows: list[tuple[Any, ...]] = []
    for instant in instants:
        minute = (instant - market.begin) // MINUTE_MS
        ranked_time = int(instant + random.choice([0, 7_300]))
        rates = []
        for one in made:
            place = int(np.searchsorted(one.funding.times, instant))
            if one.alive[minute] and place and random.random() > 0.02:  # noqa: PLR2004 - some are left out
                rates.append((one.symbol, float(one.funding.rates[place - 1]), int(one.funding.hours[place - 1])))
        rates.sort(key=lambda row: (-abs(row[1]), row[0]))
        rows += [(ranked_time, place, *row) for place, row in enumerate(rates, start=1)]
    times, places, symbols, ranked_rates, hours = (
        (list(column) for column in zip(*rows, strict=True)) if rows else ([[]] * 5)
    )
    return {
        "exchange": EXCHANGE,
        "symbol": symbols,
        "ranked_time": times,
        "rank": places,
        "funding_rate": ranked_rates,
        "score": [abs(rate) for rate in ranked_rates],
        "interval_hours": hours,
        "funding_time": [(time // RANK_EVERY_MS + 1) * RANK_EVERY_MS for time in times],
        "member": [place <= market.members for place in places],
        "rank_by": "raw",
        "known_time": times,
    }


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist yet")],
    *,
    symbols: Annotated[int, typer.Option(min=1, help="How many symbols")] = 100,
    days: Annotated[int, typer.Option(min=1, help="How many days")] = 365,
    seed: Annotated[int, typer.Option(help="Another one, another market")] = 1,
    members: Annotated[int, typer.Option(min=1, help="How many symbols a ranking makes members")] = 20,
    gap_free: Annotated[bool, typer.Option("--gap-free", help="No minute is missing inside a listing")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes")] = 1,
) -> None:
    """Write the raw folder of a made-up market with listings, delistings, gaps and changing funding intervals."""
    console = Console(stderr=True)
    if folder.exists():
        console.print(f"{folder} exists already")
        sys.exit(2)
    market = Market(symbols, days, seed, members=members, gaps=not gap_free)
    began = datetime.now(UTC)
    candles = files = 0
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("writing", total=symbols)
        for made in make(market, folder, workers=workers):
            candles, files = candles + made.candles, files + made.files
            bar.update(task, advance=1, description=made.symbol)
    seconds = (datetime.now(UTC) - began) / timedelta(seconds=1)
    Console().print(f"{candles:,} candles of {symbols} symbols in {files:,} files, {seconds:.1f} s")


if __name__ == "__main__":
    run(main)
