"""A real stack under a simulated exchange, observed from outside, and compared with the truth."""

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import redis

from cli.stack import SERVICES, Stack
from proofs.judges.stored import Stored, judge_candles, judge_settlements, read_settlements, read_stored, read_truth
from proofs.judges.tally import Role
from shared.datasets.funding import FundingRate
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.ledger import CANDLES
from shared.grid import MINUTE, days_between, floor_minute, from_ms, to_ms
from shared.ledger.day import NOTHING, SETS, from_bus
from shared.ledger.minutes import day_mask, gaps_of_mask
from shared.storage.parquet import read_rows
from tests.support.builders import wait_for, wait_until_none

SPEED = 60
SYMBOLS = ("BTC_USDT", "ETH_USDT", "SOL_USDT", "XRP_USDT")
MARKET = ["--symbols", str(len(SYMBOLS)), "--seed", "7", "--start", "2026-03-01T07:40:00", "--speed", str(SPEED)]


class Running:
    """A stack, observed from outside."""

    def __init__(self, stack: Stack, symbols: Sequence[str] = SYMBOLS) -> None:
        self.stack = stack
        self.symbols = symbols
        self.redis: Any = redis.Redis.from_url(stack.redis_url, decode_responses=True)

    def now(self) -> datetime:
        return from_ms(self.stack.ask_simulator("/sim/clock")["now_ms"])

    def stored(self, symbol: str = "BTC_USDT") -> int:
        return len(read_stored(self.stack.data_dir, symbol)[0].opens)

    def until_live(self) -> datetime:
        """Wait until every symbol's candles are stored; return the first minute from which nothing may lack."""
        wait_for(lambda: all(self.stored(symbol) > 2 for symbol in self.symbols), 60)
        return from_ms(max(int(read_stored(self.stack.data_dir, symbol)[0].opens.min()) for symbol in self.symbols))

    def problems(self, begin: datetime, end: datetime) -> dict[str, tuple[dict[str, int], list[Path]]]:
        """Return everything in which the disk differs from the truth: symbol → counts."""
        found: dict[str, tuple[dict[str, int], list[Path]]] = {}
        settled = read_settlements(self.stack.data_dir)
        for symbol in self.symbols:
            truth = read_truth(self.stack.ask_simulator, symbol, to_ms(begin), to_ms(end))
            stored, unreadable = read_stored(self.stack.data_dir, symbol)
            inside = (stored.opens >= to_ms(begin)) & (stored.opens < to_ms(end))
            values = {name: column[inside] for name, column in stored.values.items()}
            part = Stored(stored.opens[inside], values, stored.live[inside])
            tally = judge_candles(symbol, part, truth, np.ones(len(truth.opens), bool))
            inside_rates = {
                at: rates for at, rates in settled.get(symbol, {}).items() if to_ms(begin) <= at < to_ms(end)
            }
            tally.add(judge_settlements(symbol, inside_rates, truth, np.ones(len(truth.settled_times), bool)))
            wrong = {name: count for name, count in tally.counts(Role.FAULT).items() if count}
            if wrong or unreadable or not tally.candles:
                found[symbol] = wrong, unreadable
        return found

    def until_whole(self, begin: datetime, seconds: float = 60, end: datetime | None = None) -> datetime:
        """Wait until everything up to `end` is as it was, by default up to now but for what is on its way."""
        began = time.monotonic()
        until = end or floor_minute(self.now()) - 2 * MINUTE
        wait_until_none(lambda: self.problems(begin, until), "not whole", seconds)
        note_healed(os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0], time.monotonic() - began)
        return until

    def ledger(self, symbol: str, begin: datetime, end: datetime) -> Counter[str]:
        """Return how many minutes of [begin, end) the writer's ledger has in each set, and how many it lacks."""
        found: Counter[str] = Counter()
        for day in days_between(begin, end):
            books, inside = from_bus(self.redis.hgetall(f"ledger:{day}")), day_mask(day, begin, end)
            known = books.get(CANDLES, {}).get(symbol, NOTHING)
            settled = books.get(FundingRate.dataset, {}).get(symbol, NOTHING)
            for name in SETS:
                found[name] += (getattr(known, name) & inside).bit_count()
            found["missing"] += known.missing(inside).bit_count()
            found["due"] += (settled.wanted & inside).bit_count()
            found["settled"] += (settled.stored & inside).bit_count()
        return found

    def said(self, symbol: str, *columns: str) -> list[tuple[Any, ...]]:
        """Return what is stored of an instrument, in order of time, without what it repeats."""
        rows: list[dict[str, Any]] = []
        for path in sorted(self.stack.data_dir.glob("instruments/date=*/[!.]*.parquet")):
            rows += read_rows(InstrumentDefinition, path).to_pylist()
        rows.sort(key=lambda row: row["known_time"])
        found = [tuple(row[name] for name in columns) for row in rows if row["symbol"] == symbol]
        return [one for one, _ in itertools.groupby(found)]

    def service(self, name: str) -> dict[str, Any]:
        """Return what /status says of a service."""
        rows: list[dict[str, Any]] = self.stack.ask_api("/status")["services"]
        return next(row for row in rows if row["service"] == name)

    def redis_answers(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(self.redis.ping())
        except redis.exceptions.ConnectionError:
            return False

    def pids(self) -> dict[str, int]:
        """Return the process of every service."""
        return {name: program.pid for name, program in self.stack.status().items() if name in SERVICES}


def note_healed(what: str, seconds: float) -> None:
    """Append how long something took to heal to the file that FAULT_TIMES names, as a JSON line."""
    if path := os.environ.get("FAULT_TIMES"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"what": what, "seconds": round(seconds, 1)}) + "\n")


def minutes_of(day: date, mask: int) -> Iterator[datetime]:
    """Yield the minutes of a mask."""
    for gap in gaps_of_mask(day, mask):
        for number in range(gap.minutes):
            yield gap.begin + number * MINUTE
