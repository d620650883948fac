"""What is missing, fetched over REST: through the same normalisation, onto the same stream. I/O.

Gaps are looked for all the time, in one way for every cause: a start, a reconnect, a lost confirm, a new member.
The newest come first. Fresh minutes have workers of their own, so a month of history never delays the minute that was
just lost.
"""

import asyncio
import heapq

import structlog

from services.collector.channels.candles import CandleIntake
from services.collector.metrics import ABSENT, HALTED, MISSING, PAGES, REFUSED
from services.collector.publisher import Publisher
from services.collector.tracking.instrument import NEARLY_NONE
from services.collector.tracking.lifecycle import Instruments
from services.collector.tracking.requests import Request, give_up, pages, settle
from services.collector.tracking.universe import Tracker
from shared.datasets.candle import Candle
from shared.exchanges.base import ExchangeError, UnknownInstrument
from shared.ledger.minutes import Gap
from shared.runtime.service import Service

log = structlog.get_logger()

SWEEP_SECONDS = 0.5
WORKERS = {True: 8, False: 8}
"""Pages asked for at once, of the fresh minutes and of history; the client's limiters set the pace."""
_RETRY_SECONDS = 1.0
_BELIEVED_SECONDS = 60.0


class Backfill:
    """Keeps asking for what is missing until nothing is."""

    def __init__(
        self, service: Service, universe: Tracker, instruments: Instruments, intake: CandleIntake, publisher: Publisher
    ) -> None:
        self._service = service
        self._universe = universe
        self._instruments = instruments
        self._intake = intake
        self._publisher = publisher
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
        for symbol, wanted in self._universe.symbols.items():
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
        symbols, details = self._universe.symbols.values(), self._service.health.details
        MISSING.set(missing)
        ABSENT.set(sum(wanted.absent.count() for wanted in symbols))
        HALTED.set(sum(wanted.halted.count() for wanted in symbols))
        REFUSED.set(sum(wanted.refused.count() for wanted in symbols))
        details["missing_minutes"] = missing
        details["refused_minutes"] = {wanted.symbol: count for wanted in symbols if (count := wanted.refused.count())}
        # The converter waits for this before it lays the calendar's origin down. What the exchange denies is not on its
        # way: it only waits for its verdict.
        on_its_way = missing - sum(wanted.denials.count() for wanted in symbols)
        details["history_complete"] = on_its_way < NEARLY_NONE * max(1, len(symbols))

    async def _fetch(self, request: Request) -> None:
        try:
            await self._publisher.wait_for_stream(Candle.stream)
            PAGES.labels("recent" if request.fresh else "history").inc()
            asked = self._service.clock.now()  # the answer speaks of now, however long its rows then wait for room
            page = await self._service.exchange.candles(
                request.symbol, request.gap.begin, request.gap.end, now=self._service.clock.latest()
            )
            candles = self._intake.history(request, page)
            await self._publisher.put(candles)
            self._intake.published(candles)
            if (wanted := self._universe.symbols.get(request.symbol)) is not None:
                settle(
                    wanted,
                    request,
                    asked,
                    _seconds(),
                    self._instruments.halts(request.symbol),
                    disputed=self._service.clock.disputed,
                )
            self._unknown_since.pop(request.symbol, None)
            self._service.health.solved("history")
        except UnknownInstrument as error:
            self._on_unknown(request, error)
        except ExchangeError as error:
            self._service.health.problem("history", f"the exchange does not give history: {error}")
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
        if (wanted := self._universe.symbols.get(request.symbol)) is not None:
            give_up(wanted, request.gap)


def _seconds() -> float:
    return asyncio.get_running_loop().time()


def _in_both(gaps: list[Gap], before: list[Gap]) -> list[Gap]:
    """Return the parts of gaps that were missing before, too. Both lists are sorted and disjoint. Pure."""
    found = []
    for gap in gaps:
        for old in before:
            begin, end = max(gap.begin, old.begin), min(gap.end, old.end)
            if begin < end:
                found.append(Gap(begin, end))
    return found
