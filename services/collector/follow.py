"""Consume rankings, and follow who is in the universe. I/O."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import structlog

from services.collector.instruments import InstrumentWatch
from services.collector.publisher import Publisher
from services.collector.tracking.universe import Tracker
from shared.bus.streams import consumer_name
from shared.datasets.registry import UndecodableError
from shared.datasets.universe import Ranking
from shared.runtime.service import Service
from shared.symbol import Symbol

log = structlog.get_logger()

_NO_LEAVERS: Mapping[str, datetime] = {}


class Follow:
    """Takes rankings over, and lets the streams know when the set of symbols has changed."""

    def __init__(
        self,
        service: Service,
        trackers: Sequence[Tracker],
        watch: InstrumentWatch,
        publisher: Publisher,
        reconcile: Callable[[], None],
    ) -> None:
        self._service = service
        self._trackers = trackers
        self._watch = watch
        self._publisher = publisher
        self._reconcile = reconcile
        self._exchange = service.exchange.name

    async def run(self) -> None:
        """Take the current universe over, then every ranking as it comes."""
        current = await self._service.until_bus_answers(lambda: self._service.bus.universe(self._exchange))
        if current is not None:
            left = await self._service.until_bus_answers(lambda: self._service.bus.left(self._exchange))
            await self._apply(current, left)
        while True:
            await self._service.until_bus_answers(self._consume)

    async def _consume(self) -> None:
        bus, group = self._service.bus, self._service.name
        async for entries in bus.consume(
            [Ranking.stream], group, consumer=consumer_name(group), count=10, block_ms=1000
        ):
            self._service.health.resolve("redis")
            for entry in entries:
                try:
                    event = entry.event() if entry.fields else None
                except UndecodableError as error:
                    self._service.set_aside(f"{entry.stream}:{entry.id}", entry.fields, str(error))
                    event = None
                if isinstance(event, Ranking) and event.exchange == self._exchange:
                    await self._apply(event)
            if entries:
                await self._publish_wanted()
                await bus.acknowledge(group, entries)

    async def _publish_wanted(self) -> None:
        """Publish what is wanted now for the ledger, and see it go: a ranking that is acknowledged is not read again.

        Else a symbol would be forgotten that the next ranking drops while the collector is down.
        """
        for tracker in self._trackers:
            await self._publisher.put(tracker.pending_verdicts(self._exchange, self._service.clock.now()))
        await self._publisher.until_left(self._publisher.appended)

    async def _apply(self, ranking: Ranking, left: Mapping[str, datetime] | None = _NO_LEAVERS) -> None:
        """Take a ranking over. left: who had left before a restart, and when; None where that was forgotten."""
        await self._watch.list_instruments()
        now, listed = self._service.clock.now(), self._watch.instruments.listing_times()
        joined: set[Symbol] = set()
        followed_on: set[Symbol] = set()
        for tracker in self._trackers:
            joined.update(tracker.apply(ranking, now, listed))
            known = (
                tracker.left_by_ledger(now, listed)
                if left is None
                else {Symbol(symbol): at for symbol, at in left.items()}
            )
            followed_on.update(tracker.follow_left(known, now, listed))
        if followed_on:
            log.info("following on", symbols=sorted(followed_on))
        still = {symbol: at for tracker in self._trackers for symbol, at in tracker.left().items()}
        await self._service.until_bus_answers(lambda: self._service.bus.set_left(self._exchange, still))
        self._watch.end_what_is_gone()
        self._service.health.started = True
        self._service.health.details["members"] = len(ranking.members)
        log.info(
            "universe", ranked=ranking.ranked_time.isoformat(), members=len(ranking.members), joined=sorted(joined)
        )
        self._reconcile()
