"""`python -m services.writer.audit`: asks the exchange again for what is stored, and says what differs.

    python -m services.writer.audit                              20 pages at random, of everything stored
    python -m services.writer.audit --sample 200 --seed 7        200 pages, the same ones each time
    python -m services.writer.audit --begin 2025-04-05 --end 2025-04-06 --symbols BTC_USDT,ETH_USDT
    python -m services.writer.audit --repair                     and publish what the exchange says

A page is up to 288 minutes of one symbol; the settlements of the time between a symbol's first and last page are
compared, too. The exit code is 0 where all is stored as the exchange has it, 1 where something is not, 3 where that
could not be found out.
"""

import asyncio
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from services.writer.audit.auditor import Auditor, AuditTrouble, Finding, auditable_days, fields_of, read_ledgers
from services.writer.audit.compare import SETTLED_SURE, Kind, Mismatch, Page, pages_of, repairs_of, sure_until
from services.writer.disk.reading import StoredRows
from services.writer.settings import WriterSettings
from shared.bus.bus import Bus
from shared.bus.connection import BusError
from shared.clock import ExchangeClock
from shared.exchanges.base import ExchangeError, UnknownInstrument
from shared.exchanges.registry import open_exchange
from shared.grid import DAY, day_start, floor_minute
from shared.runtime.command import run
from shared.runtime.exit_codes import ExitCode
from shared.runtime.settings import read_settings
from shared.storage.files import replace_text
from shared.symbol import Symbol

CLEAN, MISMATCHES, NOT_AUDITED = ExitCode.FINE, ExitCode.FINDING, ExitCode.NOT_AVAILABLE
_SAMPLE = 20
"""Pages that are looked at where nothing else is said."""
_SHOWN = 20
"""Differences that the table shows; all are in the JSON."""


@dataclass(frozen=True)
class Choice:
    """What to audit."""

    sample: int | None = None
    seed: int | None = None
    begin: datetime | None = None
    end: datetime | None = None
    symbols: frozenset[str] = frozenset()


@dataclass
class Report:
    """What an audit brought to light."""

    pages: int = 0
    minutes: int = 0
    settlements: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    repaired: int = 0
    until: datetime | None = None
    """The instant before which minutes were looked at: newer ones may still be under way."""
    unknown: set[str] = field(default_factory=set)
    """Symbols that the exchange does not know any more: of them nothing can be said."""
    troubles: Counter[str] = field(default_factory=Counter)
    """Why looks came to no result → how many."""

    @property
    def exit_code(self) -> int:
        """Return 1 as soon as something differs for certain, whatever else went wrong."""
        if self.mismatches:
            return MISMATCHES
        return NOT_AUDITED if self.troubles or not self.minutes else CLEAN

    def as_json(self) -> dict[str, Any]:
        """Return all of it in plain values."""
        return {
            "until": self.until.isoformat() if self.until else None,
            "pages": self.pages,
            "minutes": self.minutes,
            "settlements": self.settlements,
            "mismatches": dict(Counter(one.kind.value for one in self.mismatches)),
            "repaired": self.repaired,
            "unknown_symbols": sorted(self.unknown),
            "troubles": dict(self.troubles),
            "differences": [fields_of(one) for one in self.mismatches],
        }


def plan(
    stored: StoredRows, exchange: str, choice: Choice, now: datetime, rate: float, *, retention_days: int
) -> list[Page]:
    """Choose the pages: all of a range, or a sample, in order. Reads the ledger."""
    end = min(choice.end or now, sure_until(now, rate))
    known = [
        day
        for day in auditable_days(stored, now.date(), retention_days)
        if day_start(day) < end and (choice.begin is None or day_start(day) + DAY > choice.begin)
    ]
    pages = [
        page
        for day in known
        for page in pages_of(
            day, read_ledgers(stored, day, exchange), choice.begin or day_start(day), end, choice.symbols
        )
    ]
    if choice.sample is None or choice.sample >= len(pages):
        return pages
    return sorted(random.Random(choice.seed).sample(pages, choice.sample), key=lambda page: page.begin)


def spans_of(pages: list[Page], settled_until: datetime) -> dict[Symbol, tuple[datetime, datetime]]:
    """Return the time between each symbol's first and last page, as far as its settlements can be compared. Pure."""
    by_symbol: dict[Symbol, list[Page]] = defaultdict(list)
    for page in pages:
        by_symbol[page.symbol].append(page)
    spans = {
        symbol: (min(page.begin for page in own), min(settled_until, max(page.end for page in own)))
        for symbol, own in by_symbol.items()
    }
    return {symbol: (begin, end) for symbol, (begin, end) in spans.items() if begin < end}


@dataclass
class Audit:
    """One run by hand."""

    auditor: Auditor
    clock: ExchangeClock
    bus: Bus | None
    """Where the repairs go; None: nothing is repaired."""
    report: Report = field(default_factory=Report)

    async def run(self, pages: list[Page], progress: Progress) -> None:
        """Compare everything that was chosen: candles and settlements side by side, each at its own limit."""
        spans = spans_of(pages, sure_until(self.clock.now(), self.clock.rate, after=SETTLED_SURE))
        candles = progress.add_task("pages of candles", total=len(pages))
        settlements = progress.add_task("settlements of symbols", total=len(spans))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._candles(pages, progress, candles))
            group.create_task(self._settlements(spans, progress, settlements))

    async def _candles(self, pages: list[Page], progress: Progress, bar: TaskID) -> None:
        for page in pages:
            found = await self._look(page.symbol, self.auditor.audit(page, self.clock.now()))
            if found is not None:
                self.report.pages += 1
                self.report.minutes += found.compared
            progress.advance(bar)

    async def _settlements(
        self, spans: dict[Symbol, tuple[datetime, datetime]], progress: Progress, bar: TaskID
    ) -> None:
        for symbol, (begin, end) in spans.items():
            found = await self._look(symbol, self.auditor.audit_settlements(symbol, begin, end, self.clock.now()))
            if found is not None:
                self.report.settlements += found.compared
            progress.advance(bar)

    async def _look(self, symbol: str, look: Awaitable[Finding]) -> Finding | None:
        """Do one look, note what it found, and publish what mends it."""
        try:
            found = await look
        except UnknownInstrument:
            self.report.unknown.add(symbol)
            return None
        except AuditTrouble as error:
            self.report.troubles[f"{type(error).__name__}: {error}"] += 1
            return None
        self.report.mismatches += found.mismatches
        if self.bus is not None and found.mismatches:
            await self._repair(self.bus, found)
        return found

    async def _repair(self, bus: Bus, found: Finding) -> None:
        mended = repairs_of(found.mismatches, found.compared, exchange_now=self.clock.now())
        events = [event for _, event in mended]
        try:
            await bus.publish(events)
        except BusError as error:
            self.report.troubles[f"could not repair, Redis does not answer ({type(error).__name__})"] += 1
        else:
            self.report.repaired += len(events)


_BETWEEN_SECONDS = 0.5


async def measured_clock(settings: WriterSettings) -> ExchangeClock:
    """Ask the exchange for its time: what is over, and how fast time runs there. Raises `ExchangeError`.

    The pace needs some distance: two answers in a row are as far apart as one of them may be late.
    """
    clock = ExchangeClock()
    async with open_exchange(settings.exchange, settings.okx_rest_url, ca_file=settings.okx_ca_file) as exchange:
        while True:
            clock.add(await exchange.measure_time())
            if clock.measured and clock.settled:
                break
            await asyncio.sleep(_BETWEEN_SECONDS)
    return clock


async def audit(settings: WriterSettings, choice: Choice, *, repair: bool, json: Path | None) -> int:
    """Audit, report, and return the exit code."""
    errors, bus = Console(stderr=True), Bus(str(settings.redis_url)) if repair else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        async with open_exchange(
            settings.exchange, settings.okx_rest_url, ca_file=settings.okx_ca_file, share="audit by hand"
        ) as exchange:
            clock = await measured_clock(settings)
            auditor, now = Auditor(settings.data_dir, exchange), clock.now()
            pages = await asyncio.to_thread(
                plan, auditor.stored, exchange.name, choice, now, clock.rate, retention_days=settings.retention_days
            )
            work = Audit(auditor, clock, bus)
            sure = sure_until(now, clock.rate)
            work.report.until = min(choice.end or sure, sure)
            with Progress(*columns, console=errors, transient=True) as progress:
                await work.run(pages, progress)
    except (ExchangeError, OSError, ValueError) as error:
        errors.print(f"could not audit: {error}", markup=False)
        return NOT_AUDITED
    finally:
        if bus is not None:
            await bus.close()
    if json is not None:
        replace_text(json, msgspec.json.format(msgspec.json.encode(work.report.as_json())).decode() + "\n")
    show(work.report, repair=repair)
    return work.report.exit_code


def show(report: Report, *, repair: bool) -> None:
    """Print what was found."""
    console = Console()
    counts = Table("kind", "found", title="audit")
    kinds = Counter(one.kind for one in report.mismatches)
    for kind in Kind:
        counts.add_row(kind.value, f"{kinds[kind]:,}")
    console.print(counts)
    if report.mismatches:
        first = Table("kind", "symbol", "at (UTC)", "field", "stored", "exchange", title=f"the first {_SHOWN} at most")
        rows = [(one, difference) for one in report.mismatches[:_SHOWN] for difference in one.differences]
        for one, difference in rows[:_SHOWN]:
            values = ("" if value is None else repr(value) for value in (difference.stored, difference.exchange))
            first.add_row(one.kind.value, one.symbol, f"{one.at:%Y-%m-%d %H:%M}", difference.field, *values)
        console.print(first)
    console.print(
        f"{report.pages:,} pages, {report.minutes:,} minutes and {report.settlements:,} settlements compared, "
        f"{len(report.mismatches):,} not as the exchange has them"
        + (f", {report.repaired:,} repairs published" if repair else ""),
        highlight=False,
    )
    if report.unknown:
        console.print(f"the exchange does not know any more: {', '.join(sorted(report.unknown))}", markup=False)
    for trouble, count in report.troubles.most_common():
        console.print(f"{count:,} times: {trouble}", markup=False)
    if not report.minutes:
        console.print("there was nothing to compare")


def _instant(text: str | None, option: str) -> datetime | None:
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"no ISO time: {text!r}", param_hint=option) from error
    return floor_minute(instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC))


def main(
    *,
    sample: Annotated[int | None, typer.Option(min=1, help="Pages at random; 20 where no range is given")] = None,
    seed: Annotated[int | None, typer.Option(help="The same pages each time")] = None,
    begin: Annotated[str | None, typer.Option(help="ISO time, UTC: the first minute")] = None,
    end: Annotated[str | None, typer.Option(help="ISO time, UTC: the minute after the last one")] = None,
    symbols: Annotated[str, typer.Option(help="Separated by commas; all where none is named")] = "",
    repair: Annotated[bool, typer.Option("--repair", help="Publish what the exchange says, to be stored")] = False,
    json: Annotated[
        Path | None, typer.Option(resolve_path=True, help="Write everything that was found into this file")
    ] = None,
) -> None:
    """Ask the exchange again for what is stored, field by field: exit code 0 clean, 1 mismatches, 3 not audited."""
    chosen = frozenset(filter(None, (name.strip() for name in symbols.split(","))))
    if sample is None and not (begin or end or chosen):
        sample = _SAMPLE
    choice = Choice(sample, seed, _instant(begin, "--begin"), _instant(end, "--end"), chosen)
    sys.exit(asyncio.run(audit(read_settings(WriterSettings), choice, repair=repair, json=json)))


if __name__ == "__main__":
    run(main)
