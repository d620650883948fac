"""What is missing of a channel, fetched over REST: through the same normalisation, onto the same stream. I/O.

Gaps are looked for all the time, in one way for every cause: a start, a reconnect, a lost confirm, a new member.
The newest come first. Fresh minutes have workers of their own, so a month of history never delays the minute that was
just lost.
"""

import asyncio
import heapq
from collections.abc import Sequence
from typing import Any, Protocol

import structlog

from services.collector.channels.channel import Surroundings
from services.collector.metrics import ABSENT, HALTED, MISSING, PAGES, REFUSED
from services.collector.tracking.instrument import NEARLY_NONE
from services.collector.tracking.requests import Request, give_up, pages, settle
from services.collector.tracking.universe import Tracker
from shared.datasets.channel import Channel
from shared.datasets.row import Event
from shared.exchanges.base import ExchangeError, Page, UnknownInstrument
from shared.ledger.minutes import Gap

log = structlog.get_logger()

SWEEP_SECONDS = 0.5
WORKERS = {True: 8, False: 8}
"""Pages asked for at once, of the fresh minutes and of history; the client's limiters set the pace."""
_RETRY_SECONDS = 1.0
_BELIEVED_SECONDS = 60.0


class History(Protocol):
    """Where the rows of a channel come from, and what becomes of them."""

    async def fetch(self, request: Request) -> Page[Any]:
        """Ask the exchange for a page. Raises `ExchangeError`."""

    def history(self, request: Request, page: Page[Any]) -> Sequence[Event]:
        """Return the rows of a page that are still missing. They count as seen once `published` is called."""

    def published(self, request: Request, events: Sequence[Any]) -> None:
        """Count rows of a page as seen: they are on their way."""


class Backfill:
    """Keeps asking for what is missing of a channel until nothing is."""

    def __init__(self, channel: Channel, around: Surroundings, tracker: Tracker, history: History) -> None:
        self._channel = channel
        self._service = around.service
        self._publisher = around.publisher
        self._instruments = around.instruments
        self._tracker = tracker
        self._history = history
        self._problem = "history" if channel.name == "candles" else f"{channel.name} history"
        self.missing: int | None = None
        """Minutes that should be there and are not, at the last sweep; None before the first."""
        self._running: dict[Request, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
        self._unknown_since: dict[str, float] = {}
        self._missing_before: dict[str, list[Gap]] = {}

    async def run(self) -> None:
        """Sweep for gaps for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(SWEEP_SECONDS)
                if self._service.clock.measured:
                    for request in self._next_requests():
                        self._running[request] = group.create_task(self._fetch(request))

    def _next_requests(self) -> list[Request]:
        """Return the newest missing pages for which a worker is free.

        A minute is asked for when two sweeps in a row miss it: what is on its way meanwhile has arrived by then, also
        where the exchange's clock runs many times faster than ours.
        """
        now, loop_now = self._service.clock.now(), _seconds()
        busy = {(request.symbol, request.gap.begin) for request in self._running}
        free = {
            kind: count - sum(request.fresh is kind for request in self._running) for kind, count in WORKERS.items()
        }
        missing, candidates = 0, []
        for symbol, wanted in self._tracker.symbols.items():
            gaps = wanted.gaps(now)
            missing += sum(gap.minutes for gap in gaps)
            twice = _in_both(gaps, self._missing_before.get(symbol, []))
            self._missing_before[symbol] = gaps
            if twice and self._not_before.get(symbol, 0.0) <= loop_now:
                to_ask = wanted.to_ask(twice, now, loop_now)
                candidates.append(pages(wanted, to_ask, now, self._service.exchange.limits))
        self._report(missing)
        chosen: list[Request] = []
        for request in heapq.merge(*candidates, key=lambda request: request.gap.end, reverse=True):
            if not any(free.values()):
                break
            if free[request.fresh] and (request.symbol, request.gap.begin) not in busy:
                free[request.fresh] -= 1
                chosen.append(request)
        return chosen

    def _report(self, missing: int) -> None:
        self.missing = missing
        symbols, dataset = self._tracker.symbols.values(), self._tracker.dataset
        MISSING.labels(dataset).set(missing)
        ABSENT.labels(dataset).set(sum(wanted.absent.count() for wanted in symbols))
        HALTED.labels(dataset).set(sum(wanted.halted.count() for wanted in symbols))
        REFUSED.labels(dataset).set(sum(wanted.refused.count() for wanted in symbols))

    def is_complete(self) -> bool:
        """Return whether nearly nothing is on its way. What the exchange denies is not: it waits for its verdict."""
        symbols = self._tracker.symbols.values()
        if self.missing is None:
            return False
        on_its_way = self.missing - sum(wanted.denials.count() for wanted in symbols)
        return on_its_way < NEARLY_NONE * max(1, len(symbols))

    async def _fetch(self, request: Request) -> None:
        try:
            await self._publisher.wait_for_stream(self._channel.name)
            PAGES.labels("recent" if request.fresh else "history").inc()
            asked = self._service.clock.now()  # the answer speaks of now, however long its rows then wait for room
            page = await self._history.fetch(request)
            events = self._history.history(request, page)
            await self._publisher.put(events)
            self._history.published(request, events)
            if (wanted := self._tracker.symbols.get(request.symbol)) is not None:
                settle(
                    wanted,
                    request,
                    asked,
                    _seconds(),
                    self._instruments.halts(request.symbol),
                    disputed=self._service.clock.disputed,
                )
            self._unknown_since.pop(request.symbol, None)
            self._service.health.resolve(self._problem)
        except UnknownInstrument as error:
            self._on_unknown(request, error)
        except ExchangeError as error:
            self._service.health.problem(self._problem, f"the exchange does not give {self._problem}: {error}")
            self._not_before[request.symbol] = _seconds() + _RETRY_SECONDS
        finally:
            del self._running[request]

    def _on_unknown(self, request: Request, error: UnknownInstrument) -> None:
        """Believe that nothing will come of an instrument once it is gone by evidence, and unknown for a while, too."""
        since = self._unknown_since.setdefault(request.symbol, _seconds())
        long = _seconds() - since >= _BELIEVED_SECONDS
        if long:
            self._instruments.unknown(request.symbol)
        if not long or request.symbol not in self._instruments.gone:
            self._not_before[request.symbol] = _seconds() + _RETRY_SECONDS
            return
        log.warning("no history", symbol=request.symbol, begin=request.gap.begin.isoformat(), error=str(error))
        if (wanted := self._tracker.symbols.get(request.symbol)) is not None:
            give_up(wanted, request.gap)


def _seconds() -> float:
    return asyncio.get_running_loop().time()


def _in_both(gaps: list[Gap], before: list[Gap]) -> list[Gap]:
    """Return the parts of gaps that were missing before, too. Both lists are sorted and disjoint. Pure."""
    if gaps is before:
        return gaps
    found, rest = [], iter(before)
    old = next(rest, None)
    for gap in gaps:
        while old is not None and old.begin < gap.end:
            begin, end = max(gap.begin, old.begin), min(gap.end, old.end)
            if begin < end:
                found.append(Gap(begin, end))
            if old.end > gap.end:
                break
            old = next(rest, None)
    return found
