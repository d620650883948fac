"""`python -m proofs.bench.sweep`: what it costs the collector to look for what is missing, on short and long histories.

Everything that is wanted is there, as it nearly always is, and new minutes come in. Each piece of work that the
collector repeats over all symbols is done as often as in some minutes, and timed: the event loop does nothing else
meanwhile, so the longest counts, too. The cost must follow the symbols, not the days behind them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from proofs.bench.figure import Beside, Figure
from services.collector.tracking.instrument import GRACE
from services.collector.tracking.universe import Reach, Tracker
from shared.datasets.ledger import CANDLES
from shared.datasets.universe import Ranking
from shared.grid import DAY, MINUTE, floor_day
from shared.ledger.day import DayLedger
from shared.ledger.minutes import FULL_DAY, day_mask
from shared.ledger.replica import LedgerCopy
from shared.runtime.command import run
from shared.symbol import parse_symbol

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVERY = {"sweep": 0.5, "report": 1.0, "slide": 5.0, "ledger": 5.0, "lost": 10.0, "verdicts": 15.0}
"""Work → our seconds between two rounds of it in the collector."""

console = Console()


class Rounds:
    """A tracker of which everything is there, and the work that is repeated on it."""

    def __init__(self, symbols: int, days: int) -> None:
        self.names: list[str] = [parse_symbol(f"S{number}_USDT") for number in range(symbols)]
        self.ledger = LedgerCopy(exchange="okx")
        whole = DayLedger(wanted=FULL_DAY, received=FULL_DAY)
        for ahead in range(1, days + 1):
            self.ledger[CANDLES].replace((NOW - ahead * DAY).date(), dict.fromkeys(self.names, whole))
        self.now = NOW
        self._store()
        self.tracker = Tracker(Reach(days, retention_days=max(90, days)), self.ledger, CANDLES)
        members = tuple(map(parse_symbol, self.names))
        ranking = Ranking(
            exchange="okx", ranked_time=NOW, rank_by="raw", top_n=symbols, members=members, added=(), removed=()
        )
        self.tracker.apply(ranking, NOW, {})
        self._published = self.tracker.published()
        self.work: dict[str, Callable[[], object]] = {
            "sweep": self._sweep,
            "report": self._report,
            "slide": self._slide,
            "ledger": self._store,
            "lost": self._lost,
            "verdicts": lambda: self.tracker.pending_verdicts("okx", self.now + GRACE),
        }

    def _store(self) -> None:
        """Let the ledger say that today's minutes are stored, as the writer does after each flush."""
        midnight = floor_day(self.now)
        stored = day_mask(self.now.date(), midnight, self.now)
        ledgers = dict.fromkeys(self.names, DayLedger(wanted=stored, received=stored))
        self.ledger[CANDLES].replace(self.now.date(), ledgers)
        if self.now > NOW:
            self.tracker.take_over({self.now.date()})

    def _sweep(self) -> int:
        wanted = self.tracker.symbols.values()
        missing = sum(gap.minutes for one in wanted for gap in one.gaps(self.now + GRACE))
        for one in wanted:
            missing += one.absent.count() + one.halted.count() + one.refused.count() + one.denials.count()
        if missing:
            raise AssertionError(f"{missing} minutes are missing of a market that is whole")
        return missing

    def _report(self) -> tuple[int, int]:
        warm = sum(wanted.is_warm(self.now + GRACE) for wanted in self.tracker.symbols.values())
        return warm, sum(wanted.refused.count() for wanted in self.tracker.symbols.values())

    def _slide(self) -> None:
        self.tracker.slide(self.now)
        self.tracker.adopt(self.now)
        self.tracker.reach_back(self.now)

    def _lost(self) -> None:
        if lost := self.tracker.take_back_lost(self._published):
            raise AssertionError(f"{lost} minutes are lost of a market that is whole")
        self._published = self.tracker.published()

    def minute(self) -> None:
        """Let a minute pass: a candle of every symbol comes in."""
        for wanted in self.tracker.symbols.values():
            wanted.seen.add(self.now)
        self.now += MINUTE

    def measure(self, minutes: int) -> Iterator["Row"]:
        """Yield each work, how often it was done in so many minutes, its processor seconds, and its longest."""
        for name in EVERY:  # as after a start: what is looked at once
            self.work[name]()
        taken: dict[str, list[float]] = {name: [] for name in EVERY}
        for second in range(60 * minutes):
            if second % 60 == 0:
                self.minute()
                self._store()  # so that what is compared is stored
            for name, every in EVERY.items():
                for _ in range(round(1 / every) if every < 1 else int(second % every == 0)):
                    began = time.process_time()
                    self.work[name]()
                    taken[name].append(time.process_time() - began)
        for name, found in taken.items():
            yield name, len(found), sum(found), max(found)


type Row = tuple[str, int, float, float]
"""Work, how often it was done, its processor seconds, and the longest of them."""


def core_of(rows: Sequence[Row], minutes: int) -> float:
    """Return the share of a core that all the work takes."""
    return sum(seconds for _, _, seconds, _ in rows) / (60 * minutes)


def figures(symbols: Sequence[int], days: Sequence[int], minutes: int) -> list[Figure]:
    """Measure the longest history beside the shortest."""
    found = []
    for number in symbols:
        rows = {length: list(Rounds(number, length).measure(minutes)) for length in sorted(days)}
        least, most = min(days), max(days)
        name, floor = f"{number} symbols, {most} days of history", f"the same with days={least}"
        longest = {length: 1000 * max(longest for *_, longest in of) for length, of in rows.items()}
        cores = {length: core_of(of, minutes) for length, of in rows.items()}
        found += [
            Figure(
                f"what the collector repeats all the time: {name}",
                cores[most],
                "of a core",
                floor=Beside(cores[least], floor),
            ),
            Figure(
                f"its event loop held up by that: {name}",
                longest[most],
                "ms of CPU at most",
                floor=Beside(longest[least], floor),
            ),
        ]
    return found


def show(title: str, rows: Sequence[Row], minutes: int) -> None:
    """Print what each work costs."""
    table = Table(title=title, title_justify="left")
    for name in ("work", "every s", "ms", "longest ms", "core"):
        table.add_column(name, justify="left" if name == "work" else "right")
    for name, count, seconds, longest in rows:
        core = seconds / (60 * minutes)
        table.add_row(name, f"{EVERY[name]:g}", f"{1000 * seconds / count:.2f}", f"{1000 * longest:.1f}", f"{core:.4f}")
    table.add_row("all", "", "", "", f"{core_of(rows, minutes):.4f}")
    console.print(table)


def main(
    symbols: Annotated[list[int] | None, typer.Option(help="How many symbols [default: 500 1500]")] = None,
    days: Annotated[list[int] | None, typer.Option(help="Lengths of history [default: 1 30 90]")] = None,
    minutes: Annotated[int, typer.Option(min=1, help="Minutes of work, done one after the other")] = 2,
) -> None:
    """Measure the repeated work of the collector's tracking, per number of symbols and length of history."""
    for number in symbols or [500, 1500]:
        for length in days or [1, 30, 90]:
            title = f"{number} symbols, {length} days; {timedelta(minutes=minutes)} of work"
            show(title, list(Rounds(number, length).measure(minutes)), minutes)


if __name__ == "__main__":
    run(main)
