"""Rows that are numbered become events, and prove which minutes are whole. No I/O: callbacks only append.

In a run of numbers without a hole every minute between that of its first row and that of its last is whole, also one in
which nothing happened. These two are not, since rows may have come before the first and may come after the last. So a
page of history holds, beside the rows of its minutes, the row before them and the row behind them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.collector.channels.channel import SetAside, note_unrequested
from services.collector.stream.connection import Row
from services.collector.tracking.requests import Request
from services.collector.tracking.universe import Tracker
from shared.datasets import channel as declared
from shared.datasets.registry import COMPLETENESS, AnyEvent
from shared.datasets.row import Event
from shared.exchanges.base import Page
from shared.grid import MINUTE, floor_minute
from shared.ledger.minutes import Gap
from shared.symbol import Symbol


@dataclass(frozen=True)
class Numbered:
    """What counts of a row."""

    number: int
    at: datetime


@dataclass
class Run:
    """Rows whose numbers leave none out."""

    first: Numbered
    last: Numbered

    def whole(self) -> Gap:
        """Return the minutes between those of the first row and of the last."""
        begin = floor_minute(self.first.at) + MINUTE
        return Gap(begin, max(begin, floor_minute(self.last.at)))


def runs_of(rows: Iterable[Numbered]) -> Iterator[Run]:
    """Split rows into runs. A number that comes twice counts once."""
    run: Run | None = None
    for row in sorted(rows, key=lambda row: row.number):
        if run is not None and row.number <= run.last.number + 1:
            run.last = row
            continue
        if run is not None:
            yield run
        run = Run(row, row)
    if run is not None:
        yield run


class SequenceIntake:
    """What happens to a numbered row: it becomes an event, once; a hole in the numbers leaves its minutes missing."""

    def __init__(
        self, kind: type[Event], tracker: Tracker, emit: Callable[[AnyEvent], None], set_aside: SetAside
    ) -> None:
        rule = COMPLETENESS[kind.dataset]
        if not isinstance(rule, declared.Sequence):
            raise TypeError(f"the rows of {kind.dataset} are not declared to be numbered")
        self._kind, self._number = kind, rule.number
        self._tracker = tracker
        self._emit = emit
        self._set_aside = set_aside
        self._runs: dict[Symbol, Run] = {}
        self._fetched: dict[Request, list[Gap]] = {}
        self._taken: dict[Symbol, dict[int, datetime]] = {}
        """Rows that came live, by number, in minutes that are not whole yet: a page must not make them look newer."""

    def _numbered(self, event: Event) -> Numbered:
        return Numbered(getattr(event, self._number), getattr(event, self._kind.time))

    def take(self, row: Row) -> None:
        """Take rows of the stream. One that was overtaken is left to the history."""
        wanted = self._tracker.symbols.get(row.symbol)
        if wanted is None:
            note_unrequested(self._tracker, self._set_aside, self._kind.stream, row)
            return
        for refused in row.page.refused:
            self._set_aside(self._kind.stream, refused.row, refused.reason)
        for event in row.page.events:
            if not isinstance(event, self._kind):
                continue
            fresh, run = self._numbered(event), self._runs.get(row.symbol)
            if run is not None and fresh.number <= run.last.number:
                continue
            if run is None or fresh.number != run.last.number + 1:
                run = self._runs[row.symbol] = Run(fresh, fresh)
            before, run.last = run.last, fresh
            newest = floor_minute(fresh.at)
            wanted.seen.add_span(max(floor_minute(before.at), run.whole().begin), newest)
            self._taken.setdefault(row.symbol, {})[fresh.number] = newest
            if newest > floor_minute(before.at):
                self._drop_whole(row.symbol)
            wanted.forming = newest if wanted.forming is None else max(wanted.forming, newest)
            self._emit(event)

    def history(self, request: Request, page: Page[Event]) -> Sequence[Event]:
        """Return the rows of a page that lie in minutes which are not whole yet."""
        wanted = self._tracker.symbols.get(request.symbol)
        if wanted is None:
            return []
        for refused in page.refused:
            self._set_aside(self._kind.stream, refused.row, refused.reason)
        self._fetched[request] = [run.whole() for run in runs_of(map(self._numbered, page.events))]
        taken, found = self._taken.get(request.symbol, {}), []
        for event in page.events:
            row = self._numbered(event)
            if row.number not in taken and floor_minute(row.at) not in wanted.seen:
                found.append(event)
        return found

    def published(self, request: Request, _: Sequence[Event]) -> None:
        """Count the minutes of a page as seen that its rows have proven whole: they are on their way."""
        wanted = self._tracker.symbols.get(request.symbol)
        for gap in self._fetched.pop(request, []):
            if wanted is not None:
                wanted.seen.add_span(gap.begin, gap.end)
        self._drop_whole(request.symbol)

    def _drop_whole(self, symbol: Symbol) -> None:
        """Forget which rows of whole minutes came live: these minutes are asked for again only where rows were lost."""
        wanted, taken = self._tracker.symbols.get(symbol), self._taken.get(symbol, {})
        if wanted is None:
            self._taken.pop(symbol, None)
        elif taken:
            self._taken[symbol] = {number: at for number, at in taken.items() if at not in wanted.seen}

    def forget(self, event: AnyEvent) -> None:
        """Count the minute of a row as missing again: the row was dropped from a full buffer."""
        if isinstance(event, self._kind):
            self._tracker.forget(event.symbol, self._numbered(event).at)
            self._runs.pop(event.symbol, None)
            self._taken.get(event.symbol, {}).pop(self._numbered(event).number, None)
